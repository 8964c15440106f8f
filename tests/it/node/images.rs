//! Images for the node, made here and put into containerd: no registry is asked for one.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read, Seek, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tokio::sync::OnceCell;

use super::{Node, fixture::CONTAINERD_SOCKET};
use crate::cluster::path_printed_by;

const PAUSE: &str = "ostler.test/pause:1";
const PROBE: &str = "ostler.test/probe:1";
const BUSYBOX: &str = "ostler.test/busybox:1";
const BARE: &str = "ostler.test/bare:1";
const MUSL: &str = "ostler.test/musl:1";
const DEBIAN: &str = "ostler.test/debian:1";
const OSTLER: &str = "ostler.test/ostler:dev";

/// Where programs for musl look for what loads them.
const MUSL_LOADER: &str =
    if cfg!(target_arch = "aarch64") { "/lib/ld-musl-aarch64.so.1" } else { "/lib/ld-musl-x86_64.so.1" };

/// Whom the program under test runs as, where nobody else is said: the user of distroless images.
const USER: &str = "65532:65532";

/// What was asked for once already.
#[derive(Debug, Default)]
pub(super) struct Imported {
    probe: OnceCell<()>,
    busybox: OnceCell<()>,
    bare: OnceCell<()>,
    musl: OnceCell<()>,
    debian: OnceCell<()>,
    ostler: OnceCell<()>,
}

/// The one layer of an image, as it grows.
pub(crate) struct Layer {
    archive: PathBuf,
    builder: Builder<File>,
    _folder: tempfile::TempDir,
}

impl Node {
    /// Nothing but `/probe`, a static program of ours; `tests/cluster/cmd/probe` says what it does.
    pub(crate) async fn probe_image(&self) -> &'static str {
        let make = async {
            let mut layer = Layer::new();
            layer.program(&self.programs.join("probe"), "probe");
            self.import_image(PROBE, layer, json!({"Entrypoint": ["/probe"], "User": USER})).await;
        };
        self.images.probe.get_or_init(|| make).await;
        PROBE
    }

    /// A shell and its tools, like a small distribution's.
    pub(crate) async fn busybox_image(&self) -> &'static str {
        let make = async { self.import_image(BUSYBOX, busybox(), json!({"Cmd": ["/bin/sh"]})).await };
        self.images.busybox.get_or_init(|| make).await;
        BUSYBOX
    }

    /// As small as can be: `/write`, a static program; no shell, no `/tmp`, no `/etc/passwd`.
    pub(crate) async fn bare_image(&self) -> &'static str {
        let make = async {
            let mut layer = Layer::new();
            layer.program(&Written::new(&["-static"]).program, "write");
            self.import_image(BARE, layer, json!({"Entrypoint": ["/write"], "User": USER})).await;
        };
        self.images.bare.get_or_init(|| make).await;
        BARE
    }

    /// Like Alpine: musl's loader, `/bin/write` that needs it, and a shell. It is not Alpine itself: the musl is
    /// Debian's, and the shell is a static busybox.
    pub(crate) async fn musl_image(&self) -> &'static str {
        let make = async {
            let mut layer = busybox();
            layer.folder("lib", 0o755);
            layer.program(Path::new(MUSL_LOADER), &MUSL_LOADER[1..]);
            layer.program(&Written::new(&[]).program, "bin/write");
            self.import_image(MUSL, layer, json!({"Cmd": ["/bin/sh"]})).await;
        };
        self.images.musl.get_or_init(|| make).await;
        MUSL
    }

    /// A shell and its tools, with this in the image's configuration.
    pub(crate) async fn busybox_image_with(&self, name: &str, configuration: Value) -> String {
        let image = format!("ostler.test/{name}:1");
        let mut layer = busybox();
        layer.folder("srv", 0o755);
        layer.folder("srv/app", 0o700);
        self.import_image(&image, layer, configuration).await;
        image
    }

    /// The base system of Debian, and git.
    pub(crate) async fn debian_image(&self) -> &'static str {
        let make = async {
            let root = path_printed_by("tests/cluster/debian.sh", &[]);
            self.import_root(DEBIAN, &root, json!({"Cmd": ["/bin/bash"]})).await;
        };
        self.images.debian.get_or_init(|| make).await;
        DEBIAN
    }

    /// The program under test as `/ostler`, and nothing else; it is built from what is here now.
    pub(crate) async fn ostler_image(&self) -> &'static str {
        let make = async {
            let mut layer = Layer::new();
            // as this program is built: a bench wants it optimised
            let how: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--bench"] };
            layer.program(&path_printed_by("scripts/static.sh", how), "ostler");
            self.import_image(OSTLER, layer, json!({"Entrypoint": ["/ostler"], "User": USER})).await;
        };
        self.images.ostler.get_or_init(|| make).await;
        OSTLER
    }

    pub(super) async fn import_pause(&self) {
        let mut layer = Layer::new();
        layer.program(&self.programs.join("pause"), "pause");
        self.import_image(PAUSE, layer, json!({"Entrypoint": ["/pause"], "User": USER})).await;
    }

    /// Makes an image of this content and lets the node have it. The name has a host and a tag: `ostler.test/x:1`.
    /// The configuration is the part `config` of the OCI image specification: `Entrypoint`, `Cmd`, `Env`, `User`, …
    pub(crate) async fn import_image(&self, name: &str, layer: Layer, configuration: Value) {
        let mut layer = layer;
        layer.builder.finish().unwrap();
        self.import_root(name, &layer.archive, configuration).await;
    }

    /// The same with a layer that is a tar archive already.
    pub(crate) async fn import_root(&self, name: &str, root: &Path, configuration: Value) {
        let archive = tempfile::Builder::new().suffix(".tar").tempfile_in(self.cluster.folder()).unwrap();
        write_image(archive.as_file(), name, root, &configuration);
        let import = ["--namespace=k8s.io", "images", "import"].map(str::to_owned);
        let arguments = [
            &[format!("--address={CONTAINERD_SOCKET}")][..],
            &import,
            &[archive.path().display().to_string()],
        ]
        .concat();
        let mut server = self.cluster.server().await;
        let code = server.keeper().run("import", Path::new("ctr"), &arguments);
        assert_eq!(code, 0, "{name} cannot be imported:\n{}", server.keeper().last_words("import"));
    }
}

impl Layer {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("layer.tar");
        let builder = Builder::new(File::create_new(&archive).unwrap());
        Self { archive, builder, _folder: folder }
    }

    /// A program of this machine, at that path below the root.
    pub(crate) fn program(&mut self, program: &Path, path: &str) {
        let mut file = File::open(program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let size = file.metadata().unwrap().len();
        self.append(EntryType::Regular, path, 0o755, size, &mut file);
    }

    pub(crate) fn text(&mut self, path: &str, text: &str) {
        self.append(EntryType::Regular, path, 0o644, text.len() as u64, &mut text.as_bytes());
    }

    pub(crate) fn folder(&mut self, path: &str, mode: u32) {
        self.append(EntryType::Directory, path, mode, 0, &mut [].as_slice());
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.builder.append_link(&mut header, path, target).unwrap();
    }

    fn append(&mut self, kind: EntryType, path: &str, mode: u32, size: u64, content: &mut dyn Read) {
        self.builder.append_data(&mut header(kind, mode, size), path, content).unwrap();
    }
}

/// Of root, and of no time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn busybox() -> Layer {
    let program = Path::new("/bin/busybox");
    let listed = Command::new(program)
        .arg("--list")
        .output()
        .unwrap_or_else(|error| panic!("{}, of Debian's package busybox-static: {error}", program.display()));
    let mut layer = Layer::new();
    layer.folder("bin", 0o755);
    layer.folder("etc", 0o755);
    layer.folder("tmp", 0o1777);
    layer.program(program, "bin/busybox");
    for applet in String::from_utf8(listed.stdout).unwrap().lines().filter(|&applet| applet != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer.text("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    layer.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    layer
}

/// `write.c` as a program, for musl.
struct Written {
    program: PathBuf,
    _folder: tempfile::TempDir,
}

impl Written {
    fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("write.c"), folder.path().join("write"));
        std::fs::write(&source, include_str!("write.c")).unwrap();
        let made = Command::new("musl-gcc").args(flags).arg("-o").args([&program, &source]).output();
        let made = made.unwrap_or_else(|error| panic!("musl-gcc, of Debian's package musl-tools: {error}"));
        assert!(made.status.success(), "{made:?}");
        Self { program, _folder: folder }
    }
}

/// An archive in the layout of the OCI image specification.
fn write_image(archive: &File, name: &str, layer: &Path, configuration: &Value) {
    let tag = name.rsplit_once(':').unwrap_or_else(|| panic!("{name} has no tag")).1;
    let mut layer = File::open(layer).unwrap();
    let (layer_digest, layer_size) = digest(&mut layer);
    let platform = json!({"architecture": architecture(), "os": "linux"});
    let mut image = platform.clone();
    image["config"] = configuration.clone();
    if image["config"]["Env"].is_null() {
        image["config"]["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    }
    image["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]});
    let image = image.to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", &digest(&mut image.as_bytes())),
        "layers": [blob("layer.v1.tar", &(layer_digest.clone(), layer_size))],
    })
    .to_string();
    let mut entry = blob("manifest.v1+json", &digest(&mut manifest.as_bytes()));
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

    let mut builder = Builder::new(archive);
    let mut append = |path: &str, size: u64, content: &mut dyn Read| {
        builder.append_data(&mut header(EntryType::Regular, 0o644, size), path, content).unwrap();
    };
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    append("oci-layout", layout.len() as u64, &mut layout.as_bytes());
    append("index.json", index.len() as u64, &mut index.as_bytes());
    for text in [&image, &manifest] {
        let (digest, size) = digest(&mut text.as_bytes());
        append(&format!("blobs/sha256/{digest}"), size, &mut text.as_bytes());
    }
    layer.rewind().unwrap();
    append(&format!("blobs/sha256/{layer_digest}"), layer_size, &mut layer);
    builder.into_inner().unwrap().flush().unwrap();
}

/// A descriptor of a blob.
fn blob(kind: &str, (digest, size): &(String, u64)) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": format!("sha256:{digest}"),
        "size": size,
    })
}

/// The SHA-256 in hexadecimal digits, and the number of bytes.
fn digest(content: &mut dyn Read) -> (String, u64) {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = content.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
        size += read as u64;
    }
    let mut hex = String::new();
    for byte in context.finish().as_ref() {
        write!(hex, "{byte:02x}").unwrap();
    }
    (hex, size)
}

/// As Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
