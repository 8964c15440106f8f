//! One conversation with `git upload-pack`: what it has, and the packs we ask for.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Cursor, Read};
use std::path::Path;

use gix::ObjectId;
use gix::protocol::fetch::{self, Arguments, RefMap, Response, Shallow, Tags, negotiate, refmap};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::{Capabilities, blocking_io::Transport};
use gix::protocol::transport::{Protocol, Service};
use gix_pack::bundle::write::Options as WriteOptions;

use super::budget::Budget;
use super::{Error, LimitKind, Limits, Remote, Repository, transport};

/// An open connection, past its handshake.
pub(super) struct Session<'a> {
    transport: Box<dyn Transport + 'a>,
    handshake: gix::protocol::Handshake,
    budget: &'a Budget<'a>,
}

impl<'a> Session<'a> {
    pub(super) fn open(remote: &'a Remote, budget: &'a Budget<'a>) -> Result<Self, Error> {
        let mut transport = transport::connect(remote, Service::UploadPack, Protocol::V2, budget)?;
        let handshake = gix::protocol::handshake(
            &mut transport,
            Service::UploadPack,
            transport::no_credential,
            Vec::new(),
            &mut gix::progress::Discard,
        )
        .map_err(|error| budget.explain(error))?;
        let format = handshake.capabilities.capability("object-format");
        if let Some(format) = format.and_then(|format| format.value().map(ToString::to_string))
            && format != "sha1"
        {
            let place = budget.location().to_string();
            return Err(Error::Unsupported { what: format!("{format} objects"), place });
        }
        Ok(Self { transport, handshake, budget })
    }

    /// Whether several packs may be asked for over this connection: before protocol 2, each takes its own.
    pub(super) fn is_repeatable(&self) -> bool {
        self.handshake.server_protocol_version == Protocol::V2
    }

    /// The remote's references, at least those that start with one of `prefixes`, and the objects they name.
    pub(super) fn references(&mut self, prefixes: &[String]) -> Result<BTreeMap<String, ObjectId>, Error> {
        let listed = match self.handshake.refs.take() {
            Some(listed) => listed,
            // Only commits are wanted, by name.
            None if prefixes.is_empty() => Vec::new(),
            None => {
                let mut wanted = RefPrefixes::new();
                wanted.extend(prefixes.iter().map(|prefix| prefix.as_str().into()));
                let agent = transport::agent();
                gix::protocol::LsRefsCommand::new(Some(wanted), &self.handshake.capabilities, agent)
                    .invoke_blocking(&mut self.transport, &mut gix::progress::Discard, false)
                    .map_err(|error| self.budget.explain(error))?
            }
        };
        Ok(listed.iter().filter_map(named).collect())
    }

    /// Receives the objects of `wants` that `repository` lacks, and returns how many came.
    pub(super) fn receive(
        &mut self,
        repository: &Repository,
        wants: &[(&String, &ObjectId)],
        shallow: &Shallow,
        limits: &Limits,
    ) -> Result<u64, Error> {
        let local = repository.local();
        let deepens = matches!(shallow, Shallow::Deepen(_));
        let missing = wants.iter().filter(|(_, id)| deepens || !local.has_object(id));
        let ref_map = ref_map(missing.map(|(name, id)| (name.as_str(), **id)));
        if ref_map.mappings.is_empty() {
            return Ok(0);
        }
        if let Shallow::DepthAtRemote(_) = shallow
            && !self.is_repeatable()
        {
            self.handshake.capabilities = without_relative(&self.handshake.capabilities)?;
        }
        let mut objects = local.clone();
        objects.objects.refresh = gix::odb::store::RefreshMode::Never;
        let mut negotiation = Negotiation {
            repository: &objects,
            graph: objects.revision_graph(None),
            negotiator: gix::negotiate::Algorithm::Consecutive.into_negotiator(),
            ref_map: &ref_map,
            shallow,
        };
        let pack_dir = repository.common_dir().join("objects/pack");
        let mut received = 0;
        let budget = self.budget;
        let outcome = gix::protocol::fetch(
            &mut negotiation,
            |pack, _, _| {
                received = write_pack(pack, &pack_dir, &local, budget, limits)?;
                Ok(true)
            },
            gix::progress::Discard,
            budget.interrupt(),
            fetch::Context {
                handshake: &mut self.handshake,
                transport: &mut self.transport,
                user_agent: transport::agent(),
                trace_packetlines: false,
            },
            fetch::Options {
                shallow_file: local.shallow_file().map_err(Error::gix("find the shallow boundary"))?,
                shallow,
                tags: Tags::None,
                reject_shallow_remote: false,
            },
        );
        outcome.map_err(|error| budget.explain(error))?;
        Ok(received)
    }
}

/// Before protocol 2 a request repeats what the server can do, and by `deepen-relative` gix would ask it to count the depth
/// from our boundary: with none, all of the history came.
fn without_relative(offered: &Capabilities) -> Result<Capabilities, Error> {
    let kept = offered.iter().filter(|offered| offered.name() != "deepen-relative");
    let kept = kept.map(|offered| match offered.value() {
        Some(value) => format!("{}={value}", offered.name()),
        None => offered.name().to_string(),
    });
    let text = format!("\0{}", kept.collect::<Vec<_>>().join(" "));
    let read = Capabilities::from_bytes(text.as_bytes());
    read.map(|(capabilities, _)| capabilities).map_err(Error::gix("read the server's capabilities"))
}

fn named(reference: &Ref) -> Option<(String, ObjectId)> {
    let (name, target, _) = reference.unpack();
    Some((name.to_string(), target?.to_owned()))
}

/// What gix's negotiation looks at: the objects we want.
fn ref_map<'w>(wants: impl Iterator<Item = (&'w str, ObjectId)>) -> RefMap {
    let mapping = |(name, object): (&str, ObjectId)| refmap::Mapping {
        remote: refmap::Source::Ref(Ref::Direct { full_ref_name: name.into(), object }),
        local: None,
        spec_index: refmap::SpecIndex::ExplicitInRemote(0),
    };
    RefMap {
        mappings: wants.map(mapping).collect(),
        refspecs: Vec::new(),
        extra_refspecs: Vec::new(),
        fixes: Vec::new(),
        remote_refs: Vec::new(),
        object_hash: gix::hash::Kind::Sha1,
    }
}

/// Tells the server what we have.
struct Negotiation<'a> {
    repository: &'a gix::Repository,
    graph: gix::negotiate::Graph<'a, 'a>,
    negotiator: Box<dyn gix::negotiate::Negotiator>,
    ref_map: &'a RefMap,
    shallow: &'a Shallow,
}

impl fetch::Negotiate for Negotiation<'_> {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<negotiate::Action> {
        let no_alternates = || Ok(std::iter::empty::<(gix::refs::file::Store, gix::OdbHandle)>());
        negotiate::mark_complete_and_common_ref(
            &self.repository.objects,
            &self.repository.refs,
            no_alternates,
            &mut *self.negotiator,
            &mut self.graph,
            self.ref_map,
            self.shallow,
            |_| false,
        )
    }

    /// By name of the object and never by name of the reference: it may have moved since it was listed.
    fn add_wants(&mut self, arguments: &mut Arguments, _: &[bool]) -> bool {
        for id in self.ref_map.mappings.iter().filter_map(|mapping| mapping.remote.as_id()) {
            arguments.want(id);
        }
        true
    }

    fn one_round(
        &mut self,
        state: &mut negotiate::one_round::State,
        arguments: &mut Arguments,
        previous: Option<&Response>,
    ) -> gix::Result<(negotiate::Round, bool)> {
        negotiate::one_round(&mut *self.negotiator, &mut self.graph, state, arguments, previous)
    }
}

/// Writes the pack while it streams, with its index, and returns its number of objects.
fn write_pack(
    pack: &mut dyn BufRead,
    pack_dir: &Path,
    local: &gix::Repository,
    budget: &Budget<'_>,
    limits: &Limits,
) -> gix::Result<u64> {
    let mut header = [0; 12];
    pack.read_exact(&mut header).map_err(gix::Error::from_error)?;
    let announced = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    if announced > limits.pack_objects {
        let stop = budget.exceeded(LimitKind::PackObjects, limits.pack_objects.into());
        return Err(gix::Error::from_error(stop));
    }
    let mut pack = Cursor::new(header).chain(pack);
    let written = gix_pack::Bundle::write_to_directory(
        &mut pack,
        Some(pack_dir),
        &mut gix::progress::Discard,
        budget.interrupt(),
        Some(local.objects.clone()),
        gix::hash::Kind::Sha1,
        WriteOptions { alloc_limit_bytes: Some(limits.object_bytes), ..WriteOptions::default() },
    );
    let written = match written {
        Err(error) if error.is_resource_exhausted() => {
            let stop = budget.exceeded(LimitKind::ObjectBytes, limits.object_bytes as u64);
            return Err(gix::Error::from_error(stop));
        }
        written => written?,
    };
    // The mark against garbage collection: nothing collects garbage here.
    if let Some(keep) = &written.keep_path {
        match std::fs::remove_file(keep) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(gix::Error::from_error(error));
            }
            _ => {}
        }
    }
    Ok(written.index.num_objects.into())
}
