//! The key that signs results.

use std::path::{Path, PathBuf};

use super::{Error, state_folder::config_folder};
use crate::git::sign::SigningKey;

/// The default key's file in the user's config folder; its public half stands beside it as `.pub`.
pub(super) const KEY: &str = "signing_key";

/// Loads the key that was named, or the user's own, which is made at its first use.
pub(super) fn signing(named: Option<&Path>) -> Result<SigningKey, Error> {
    let failed = |path: &Path, e| Error::setup(format!("use the signing key {}", path.display()), e);
    if let Some(path) = named {
        return SigningKey::load(path).map_err(|e| failed(path, e));
    }
    let path: PathBuf = config_folder()?.join(KEY);
    if path.exists() {
        return SigningKey::load(&path).map_err(|e| failed(&path, e));
    }
    let key = SigningKey::generate("ostler").map_err(|e| failed(&path, e))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::setup(format!("make {}", folder.display()), e))?;
    }
    key.store(&path).map_err(|e| failed(&path, e))?;
    let public = key.public_line().map_err(|e| failed(&path, e))?;
    let public_path = path.with_extension("pub");
    std::fs::write(&public_path, format!("{public}\n"))
        .map_err(|e| Error::setup(format!("write {}", public_path.display()), e))?;
    Ok(key)
}
