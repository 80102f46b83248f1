//! Reply codes, and which of them cost the channel or the connection.

macro_rules! reply_codes {
    ($(#[$doc:meta])* $name:ident { $($code:ident($number:literal)),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[allow(non_camel_case_types, missing_docs, clippy::upper_case_acronyms, reason = "AMQP's own names")]
        pub enum $name { $($code),* }

        impl $name {
            /// The number on the wire.
            pub fn number(self) -> u16 {
                match self { $($name::$code => $number),* }
            }

            /// The name that reply texts start with.
            pub fn name(self) -> &'static str {
                match self { $($name::$code => stringify!($code)),* }
            }
        }
    };
}

reply_codes! {
    /// Codes that close the channel.
    SoftCode {
        CONTENT_TOO_LARGE(311), NO_ROUTE(312), NO_CONSUMERS(313), ACCESS_REFUSED(403),
        NOT_FOUND(404), RESOURCE_LOCKED(405), PRECONDITION_FAILED(406),
    }
}

reply_codes! {
    /// Codes that close the connection.
    HardCode {
        CONNECTION_FORCED(320), INVALID_PATH(402), FRAME_ERROR(501), SYNTAX_ERROR(502),
        COMMAND_INVALID(503), CHANNEL_ERROR(504), UNEXPECTED_FRAME(505), RESOURCE_ERROR(506),
        NOT_ALLOWED(530), NOT_IMPLEMENTED(540), INTERNAL_ERROR(541),
    }
}

/// Octets of a reply text at most: it is a short string.
pub const REPLY_TEXT_MAX: usize = 255;

/// A reply text as RabbitMQ writes it: `NOT_FOUND - no queue 'q' in vhost '/'`, cut with an ellipsis.
pub fn reply_text(name: &str, explanation: &str) -> String {
    let mut text = format!("{name} - {explanation}");
    if text.len() > REPLY_TEXT_MAX {
        let mut end = REPLY_TEXT_MAX - 3;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = reply_text("NOT_FOUND", &"é".repeat(200));
        assert!(text.len() <= REPLY_TEXT_MAX && text.ends_with("é..."));
    }
}
