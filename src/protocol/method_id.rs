//! Names of methods.

/// Class and method id.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct MethodId {
    /// Class.
    pub class: u16,
    /// Method within the class.
    pub method: u16,
}

impl MethodId {
    /// No method is at fault.
    pub const NONE: MethodId = MethodId {
        class: 0,
        method: 0,
    };
}
