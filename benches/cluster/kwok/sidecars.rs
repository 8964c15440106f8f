//! The sidecars of all pods, in one process: they speak the protocol of the real ones with the real controller and the
//! real recorder. What they say of their agents is made up.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use ostler::{
    harness::{
        control::{Answer, Notice, Request},
        place::State,
        pod::{ANNOTATION, PodFile},
        process::Process,
    },
    kinds::harness_run::EgressSeen,
    ports::workloads::Stage,
    report::{ChangesSeen, End, FinalRecord, REPORT, Report},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};

/// How long an agent runs.
const WORK: Duration = Duration::from_secs(1);
/// Between two attempts to hand a result in; doubled each time, as the real one does.
const PAUSE: Duration = Duration::from_millis(100);
/// The audience that the recorder wants.
const AUDIENCE: &str = "ostler-result";

/// All sidecars, by `POD/NAMESPACE`.
pub(super) struct Sidecars {
    client: Client,
    web: reqwest::Client,
    recorder: watch::Receiver<String>,
    known: Mutex<BTreeMap<String, Arc<Sidecar>>>,
}

/// One of them.
struct Sidecar {
    pod: Pod,
    file: PodFile,
    state: watch::Sender<State>,
    given: watch::Sender<bool>,
}

impl Sidecars {
    /// They hand results in at the address that the receiver has then, whose certificate is of this authority.
    pub(super) fn new(
        client: Client,
        authority: &str,
        recorder: watch::Receiver<String>,
    ) -> Result<Arc<Self>> {
        let trusted = reqwest::Certificate::from_pem(authority.as_bytes())?;
        // Each sidecar is a process of its own: none uses the connection of another.
        let web = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([trusted])
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Arc::new(Self { client, web, recorder, known: Mutex::default() }))
    }

    /// The sidecar of a pod begins. False: it had begun before.
    pub(super) fn begin(self: &Arc<Self>, pod: Pod) -> Result<bool> {
        let text = pod.annotations().get(ANNOTATION).context("a pod that is no place")?;
        let file = serde_json::from_str(text)?;
        let name = format!("{}/{}", pod.name_any(), pod.namespace().unwrap_or_default());
        let sidecar = Arc::new(Sidecar {
            pod,
            file,
            state: watch::Sender::new(State::new(Process::own()?)),
            given: watch::Sender::default(),
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(&name) {
            return Ok(false);
        }
        known.insert(name, Arc::clone(&sidecar));
        drop(known);
        let all = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = all.live(&sidecar).await {
                eprintln!("the sidecar of {}: {error:#}", sidecar.file.spec.run);
            }
        });
        Ok(true)
    }

    /// Answers at a socket, for as long as this is polled.
    pub(super) async fn answer_at(self: Arc<Self>, socket: &Path) -> Result<()> {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let all = Arc::clone(&self);
            tokio::spawn(async move {
                // whoever asked may be gone
                let _ = all.answer(stream).await;
            });
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> Result<()> {
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let name = line.trim_end().trim_end_matches("/sidecar");
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let sidecar = known().with_context(|| format!("nobody knows {name}"))?;
        line.clear();
        reader.read_line(&mut line).await?;
        match serde_json::from_str(&line)? {
            Request::Watch => return sidecar.tell(&mut reader, &mut writer).await,
            Request::Provide(_) => drop(sidecar.given.send_replace(true)),
            Request::Logs(_) => return Ok(()),
            request => bail!("nothing of this bench leads to {request:?}"),
        }
        Ok(writer.write_all(&serde_json::to_vec(&Answer::Done)?).await?)
    }

    /// From the first secret to the acknowledged result.
    async fn live(&self, sidecar: &Sidecar) -> Result<()> {
        let step = |change: fn(&mut State)| sidecar.state.send_modify(change);
        sidecar.given.subscribe().wait_for(|given| *given).await?;
        step(|state| {
            state.stage = Stage::Preparing;
            state.egress_proven = Some("played: no packet was sent".to_owned());
        });
        step(|state| {
            state.stage = Stage::Running;
            state.started_at = Some(Timestamp::now());
            state.startup.first_output_ms = Some(0);
        });
        tokio::time::sleep(WORK).await;
        step(|state| {
            state.stage = Stage::Collecting;
            state.ended_at = Some(Timestamp::now());
            state.end = Some(End::Exited { code: 0 });
        });
        let result = pack(&sidecar.report())?;
        step(|state| state.stage = Stage::Delivering);
        self.deliver(sidecar, result).await?;
        step(|state| state.stage = Stage::Released);
        Ok(())
    }

    async fn deliver(&self, sidecar: &Sidecar, result: Vec<u8>) -> Result<()> {
        let run = &sidecar.file.spec.run;
        let digest = format!("sha256:{:x}", Sha256::digest(&result));
        let token = self.token(&sidecar.pod).await?;
        let mut pause = PAUSE;
        loop {
            let recorder = self.recorder.borrow().clone();
            let request = self
                .web
                .put(format!("{recorder}/api/v1/runs/{}/{}/result", run.namespace, run.name))
                .bearer_auth(&token)
                .header("content-type", "application/x-tar")
                .header("ostler-run-uid", run.uid.as_str())
                .header("ostler-report-digest", &digest)
                .body(result.clone());
            match request.send().await {
                Ok(answer) if answer.status() == reqwest::StatusCode::OK => return Ok(()),
                // it says so until the push is done, and while it is not there
                Ok(answer) if answer.status().as_u16() == 202 || answer.status().is_server_error() => {}
                Ok(answer) => bail!("the recorder answers {}: {}", answer.status(), answer.text().await?),
                Err(error) if error.is_connect() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }

    /// The token that a kubelet would have put into the pod.
    async fn token(&self, pod: &Pod) -> Result<String> {
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.uid(),
        };
        let spec = TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            bound_object_ref: Some(bound),
            ..TokenRequestSpec::default()
        };
        let accounts: Api<ServiceAccount> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts.create_token_request("default", &PostParams::default(), &request).await?;
        Ok(made.status.context("a token")?.token)
    }
}

impl Sidecar {
    /// A notice at first and at every change, until the controller goes.
    async fn tell(
        &self,
        reader: &mut (impl AsyncReadExt + Unpin),
        writer: &mut (impl AsyncWriteExt + Unpin),
    ) -> Result<()> {
        let (mut state, mut given) = (self.state.subscribe(), self.given.subscribe());
        let mut nothing = [0];
        loop {
            let notice = Notice {
                needs_secrets: !*given.borrow_and_update(),
                state: Some(state.borrow_and_update().clone()),
            };
            let mut line = serde_json::to_vec(&notice)?;
            line.push(b'\n');
            writer.write_all(&line).await?;
            tokio::select! {
                changed = state.changed() => changed?,
                changed = given.changed() => changed?,
                _ = reader.read(&mut nothing) => return Ok(()),
            }
        }
    }

    fn report(&self) -> Report {
        let (state, spec) = (self.state.borrow(), &self.file.spec);
        Report {
            run: spec.run.clone(),
            place: self.pod.uid().unwrap_or_default(),
            digest: spec.digest.clone(),
            end: End::Exited { code: 0 },
            record: FinalRecord { summary: "played".to_owned(), ..FinalRecord::default() },
            started_at: state.started_at,
            ended_at: state.ended_at,
            startup: state.startup.clone(),
            egress_proof: state.egress_proven.clone(),
            egress: EgressSeen::default(),
            limits_not_enforced: vec![],
            changes: ChangesSeen::default(),
            notes: vec![],
            artifacts: vec![],
        }
    }
}

/// The report as the stream that a sidecar hands in, with nothing beside it.
fn pack(report: &Report) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(report)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(json.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, REPORT, json.as_slice())?;
    Ok(tar.into_inner()?)
}
