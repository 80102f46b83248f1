//! Whether a declaration has the arguments that the queue or exchange was declared with.

use crate::protocol::field_table::FieldValue;

/// An argument that differs from what the queue or exchange was declared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Inequivalent {
    /// The argument or property.
    pub argument: &'static str,
    /// As declared now.
    pub received: Option<FieldValue>,
    /// As it is.
    pub current: Option<FieldValue>,
}

/// Compares one argument.
///
/// # Errors
/// [`Inequivalent`] if they differ; integers of any width are equal if their numbers are.
pub fn equivalent(
    argument: &'static str,
    current: Option<&FieldValue>,
    received: Option<&FieldValue>,
) -> Result<(), Inequivalent> {
    let same = match (current, received) {
        (Some(a), Some(b)) => match (a.as_integer(), b.as_integer()) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
        (None, None) => true,
        _ => false,
    };
    if same {
        return Ok(());
    }
    Err(Inequivalent {
        argument,
        received: received.cloned(),
        current: current.cloned(),
    })
}
