//! Keeps a long-lived mirror small: each fetch adds a pack, and a handle can only ever know so many.

use std::collections::HashSet;
use std::io::{BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gix_pack::data::output::{Count, Entry, bytes::FromEntriesIter, count::PackLocation};
use gix_pack::data::{Version, input};

use super::{Error, Mirror};

/// Packs that a mirror may have before they are put together. A handle has slots for 1024.
const PACKS: usize = 40;

impl Mirror {
    /// Puts the small packs together when there are many. The big ones stay: a pack is left alone when it is more than
    /// twice as long as all smaller ones together, so that each object is copied a logarithmic number of times.
    pub(super) fn repack(&self) -> Result<(), Error> {
        let pack_dir = self.repository().common_dir().join("objects/pack");
        let mut packs = packs(&pack_dir)?;
        if packs.len() <= PACKS {
            return Ok(());
        }
        packs.sort();
        let mut total = 0;
        let small = packs.iter().take_while(|(length, _)| {
            let joins = total == 0 || *length <= 2 * total;
            total += length;
            joins
        });
        let small: Vec<&Path> = small.map(|(_, path)| path.as_path()).collect();
        let made = self.put_together(&small, &pack_dir).map_err(Error::gix("put packs together"))?;
        for pack in small.into_iter().filter(|pack| Some(*pack) != made.as_deref()) {
            for file in [pack.with_extension("idx"), pack.to_owned()] {
                std::fs::remove_file(&file).map_err(Error::io("remove", &file))?;
            }
        }
        Ok(())
    }

    /// Writes the objects of all `packs` into one, without deltas, and gives its path.
    fn put_together(&self, packs: &[&Path], pack_dir: &Path) -> gix::Result<Option<PathBuf>> {
        let local = self.repository().local();
        let mut ids = HashSet::new();
        for pack in packs {
            let index = gix_pack::index::File::at(pack.with_extension("idx"), gix::hash::Kind::Sha1)?;
            ids.extend(index.iter().map(|entry| entry.oid));
        }
        let count = u32::try_from(ids.len()).map_err(gix::Error::from_error)?;
        let entries = ids.iter().map(|id| {
            let object = local.find_object(*id)?;
            let data =
                gix::objs::Data { kind: object.kind, object_hash: gix::hash::Kind::Sha1, data: &object.data };
            let count = Count { id: *id, entry_pack_location: PackLocation::NotLookedUp };
            Ok(vec![Entry::from_data(&count, &data, gix::zlib::Compression::DEFAULT)?])
        });
        let mut file = tempfile::tempfile_in(pack_dir).map_err(gix::Error::from_error)?;
        for written in FromEntriesIter::new(entries, &mut file, count, Version::V2, gix::hash::Kind::Sha1) {
            written?;
        }
        file.flush().and_then(|()| file.rewind()).map_err(gix::Error::from_error)?;
        let written = gix_pack::Bundle::write_to_directory(
            &mut BufReader::new(file),
            Some(pack_dir),
            &mut gix::progress::Discard,
            &AtomicBool::new(false),
            None::<gix::OdbHandle>,
            gix::hash::Kind::Sha1,
            gix_pack::bundle::write::Options { iteration_mode: input::Mode::Verify, ..Default::default() },
        )?;
        if let Some(keep) = &written.keep_path {
            std::fs::remove_file(keep).map_err(gix::Error::from_error)?;
        }
        Ok(written.data_path)
    }
}

/// The packs of a folder and their lengths in bytes.
fn packs(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut packs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "pack") {
            packs.push((entry.metadata().map_err(Error::io("look at", &path))?.len(), path));
        }
    }
    Ok(packs)
}
