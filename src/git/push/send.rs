//! One exchange with receive-pack: handshake, commands, pack, report.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    ops::ControlFlow,
    rc::Rc,
};

use gix::protocol::transport::{
    Protocol, Service,
    client::{
        MessageKind, WriteMode,
        blocking_io::{ExtendedBufRead, RequestWriter, Transport},
    },
};

use super::{
    super::{
        Limits, Remote, Repository,
        budget::Budget,
        pack,
        transport::{agent, connect, no_credential},
    },
    Advertised, AtomicBool, Error, HashSet, ObjectId, Outcome, Push, Report,
    rejection::{MAX_TEXT, sanitize},
    report::Status,
};

/// Longest report that is read, bytes: [`super::MAX_UPDATES`] lines of it are far shorter.
const MAX_REPORT: u64 = 1 << 20;

impl Push {
    /// Pushes from `repository` to `remote`. Blocks for at most the remote's timeout; `interrupt` ends it early.
    ///
    /// A rejection is an answer and in the report. Errors before anything was sent are [`Error::Remote`], later ones
    /// [`Error::Unknown`]: fetch and look before trying again.
    pub fn send(
        &self,
        repository: &Repository,
        remote: &Remote,
        interrupt: &AtomicBool,
    ) -> Result<Report, Error> {
        let local = repository.local();
        let budget = Budget::new(remote, &Limits::default(), interrupt);
        let mut transport = connect(remote, Service::ReceivePack, Protocol::V1, &budget)
            .map_err(|error| Error::Remote(Box::new(error)))?;
        let handshake = gix::protocol::handshake(
            &mut transport,
            Service::ReceivePack,
            no_credential,
            Vec::new(),
            &mut gix::progress::Discard,
        )
        .map_err(|error| Error::Remote(Box::new(budget.explain(error))))?;
        let server = Advertised::new(&handshake);
        if let Some(outcomes) = self.decide(&local, &server)? {
            return Ok(self.report(outcomes, String::new(), 0));
        }
        let capabilities = self.capabilities(&server)?;
        let objects = self.objects(&local, &server)?;
        let sideband = server.offers("side-band-64k");
        let unknown = |error| Error::Unknown(Box::new(budget.explain(error)));

        let mut answer = Answer::default();
        let mut request = transport
            .request(WriteMode::Binary, MessageKind::Flush, false)
            .map_err(|error| Error::Remote(Box::new(budget.explain(gix::Error::from_error(error)))))?;
        self.commands(&mut request, &server, &capabilities)
            .map_err(|error| unknown(gix::Error::from_error(error)))?;
        let (mut writer, reader) = request.into_parts();
        // A server that refuses early closes its end while we still write; what it said is worth more than that.
        let sent = pack::write(&local, &objects, &mut writer, &self.limits);
        let flushed = writer.flush();
        // The end of the request's body: nothing is answered before.
        drop(writer);
        let read = answer.read(reader, sideband);
        let status =
            if sideband { Status::from_packets(&answer.report) } else { Status::from_lines(&answer.report) };
        let Some(status) = status else {
            let error = match (sent, flushed, read) {
                (Err(pack::Error::Write(error)), ..) => error,
                (Err(error), ..) => return Err(error.into()),
                (_, Err(error), _) | (_, _, Err(error)) => gix::Error::from_error(error),
                _ => gix::Error::from_error(io::Error::new(io::ErrorKind::UnexpectedEof, answer.text())),
            };
            return Err(unknown(error));
        };
        let text = answer.text();
        let outcomes = self.updates.iter().map(|update| match server.at(&update.name) {
            Some(now) if now == update.new => Outcome::Done,
            _ => status.outcome(&update.name, &text),
        });
        let outcomes = outcomes.collect();
        Ok(self.report(outcomes, text, objects.len()))
    }

    fn capabilities(&self, server: &Advertised) -> Result<String, Error> {
        if !server.offers("report-status") {
            return Err(Error::Unsupported("report-status"));
        }
        let mut wanted = vec!["report-status".to_owned()];
        if server.offers("side-band-64k") {
            wanted.push("side-band-64k".to_owned());
        }
        if self.updates.len() > 1 {
            if !server.offers("atomic") {
                return Err(Error::Unsupported("atomic pushes"));
            }
            wanted.push("atomic".to_owned());
        }
        if server.offers("object-format") {
            wanted.push("object-format=sha1".to_owned());
        }
        let (name, value) = agent();
        wanted.push(format!("{name}={}", value.unwrap_or_default()));
        Ok(wanted.join(" "))
    }

    fn objects(&self, repository: &gix::Repository, server: &Advertised) -> Result<Vec<ObjectId>, Error> {
        let mut known: HashSet<ObjectId> = server.refs.iter().map(|(_, id)| *id).collect();
        known.extend(&self.known);
        let tips: Vec<ObjectId> = self.updates.iter().map(|update| update.new).collect();
        Ok(pack::missing(repository, &tips, &known, &self.limits)?.objects)
    }

    /// One pkt-line per update that changes something, the capabilities behind the first, then a flush.
    fn commands(
        &self,
        request: &mut RequestWriter<'_>,
        server: &Advertised,
        capabilities: &str,
    ) -> io::Result<()> {
        let null = ObjectId::null(gix::hash::Kind::Sha1);
        let pending = self.updates.iter().filter(|update| server.at(&update.name) != Some(update.new));
        for (index, update) in pending.enumerate() {
            let mut line = format!("{} {} {}", update.old.unwrap_or(null), update.new, update.name);
            if index == 0 {
                line.push('\0');
                line.push_str(capabilities);
            }
            request.write_all(line.as_bytes())?;
        }
        request.write_message(MessageKind::Flush)
    }
}

/// What came back: the report, and what hooks printed.
#[derive(Default)]
struct Answer {
    report: Vec<u8>,
    printed: Rc<RefCell<Vec<u8>>>,
}

impl Answer {
    fn read<'a>(
        &mut self,
        mut reader: Box<dyn ExtendedBufRead<'a> + Unpin + 'a>,
        sideband: bool,
    ) -> io::Result<()> {
        if sideband {
            let printed = Rc::clone(&self.printed);
            reader.set_progress_handler(Some(Box::new(move |_, text| {
                let mut printed = printed.borrow_mut();
                let room = (4 * MAX_TEXT).saturating_sub(printed.len());
                printed.extend_from_slice(&text[..text.len().min(room)]);
                if room > 0 {
                    printed.push(b'\n');
                }
                ControlFlow::Continue(())
            })));
        }
        reader.take(MAX_REPORT).read_to_end(&mut self.report).map(drop)
    }

    fn text(&self) -> String {
        sanitize(&self.printed.borrow())
    }
}
