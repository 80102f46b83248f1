//! `leveret repair`: sets aside what `check` finds damaged. Nothing is deleted: what was there is in a folder of its
//! own afterwards, and what can be read of it in its place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::storage::Folder;

/// Whether nothing is damaged any more.
///
/// # Errors
/// It cannot be told what is damaged, or not be set aside.
pub fn repair(dir: &Path) -> io::Result<bool> {
    let _locked = Folder::lock(dir)?;
    let found = super::examine(dir)?;
    super::tell(dir, &found)?;
    if found.faults.is_empty() {
        writeln!(io::stdout(), "{}: clean, nothing to do", dir.display())?;
        return Ok(true);
    }
    let aside = free(dir);
    found.repair(dir, &aside)?;
    let left = super::examine(dir)?;
    super::tell(dir, &left)?;
    let result = match left.faults.is_empty() {
        true => "what is left is clean",
        false => "not all could be mended",
    };
    writeln!(
        io::stdout(),
        "{}: set aside in {}; {result}: {} segments, {} messages, {} definitions",
        dir.display(),
        aside.display(),
        left.segments,
        left.messages,
        left.definitions
    )?;
    Ok(left.faults.is_empty())
}

/// A name for the folder in which it is set aside.
fn free(dir: &Path) -> PathBuf {
    let mut names = (1u32..).map(|n| dir.join(format!("damaged-{n}")));
    let free = names.find(|path| !path.exists());
    free.unwrap_or_else(|| dir.join("damaged"))
}
