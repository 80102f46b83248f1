//! `leveret check`: reads all of a data folder and says what is damaged, and what that costs.

use std::io::{self, Write};
use std::path::Path;

use crate::storage::{self, Folder};

/// Whether nothing is damaged. `definitions_only`: `dir` is a copy of the definitions in sled, which is opened.
///
/// # Errors
/// That cannot be told: it is no data folder, of another version, in use, or the disk says no.
pub fn check(dir: &Path, definitions_only: bool) -> io::Result<bool> {
    if definitions_only {
        return storage::probe(dir).map(|()| true);
    }
    let _locked = Folder::lock(dir)?;
    let found = super::examine(dir)?;
    super::tell(dir, &found)?;
    let clean = found.faults.is_empty();
    let result = match clean {
        true => "clean".to_string(),
        false => format!("damaged in {} places", found.faults.len()),
    };
    writeln!(
        io::stdout(),
        "{}: {result}; {} segments, {} messages, {} definitions",
        dir.display(),
        found.segments,
        found.messages,
        found.definitions
    )?;
    if !clean {
        let shown = dir.display();
        writeln!(
            io::stdout(),
            "`leveret repair {shown}` sets aside what is damaged; a start does without it, too, and tells it each time"
        )?;
    }
    Ok(clean)
}
