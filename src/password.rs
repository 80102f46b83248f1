//! Password hashes in RabbitMQ's formats: base64 of a four-byte salt and the hash of salt and
//! password.

use std::io::{self, BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use sha2::{Digest, Sha256, Sha512};

/// The default algorithm.
pub const SHA256: &str = "rabbit_password_hashing_sha256";

/// The other one.
pub const SHA512: &str = "rabbit_password_hashing_sha512";

/// What hashes of RabbitMQ before 3.6 are; only checked, never made.
pub const MD5: &str = "rabbit_password_hashing_md5";

/// All algorithms that we can check.
pub const ALGORITHMS: [&str; 3] = [SHA256, SHA512, MD5];

/// Bytes of salt.
const SALT_BYTES: usize = 4;

fn digest(algorithm: &str, salt: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    match algorithm {
        SHA256 => Some(
            Sha256::new()
                .chain_update(salt)
                .chain_update(password)
                .finalize()
                .to_vec(),
        ),
        SHA512 => Some(
            Sha512::new()
                .chain_update(salt)
                .chain_update(password)
                .finalize()
                .to_vec(),
        ),
        MD5 => Some(
            Md5::new()
                .chain_update(salt)
                .chain_update(password)
                .finalize()
                .to_vec(),
        ),
        _ => None,
    }
}

/// Whether we can check hashes of this algorithm.
pub fn is_supported(algorithm: &str) -> bool {
    ALGORITHMS.contains(&algorithm)
}

/// Whether this is base64 of a salt and a hash of the algorithm's length.
pub fn is_hash(stored: &str, algorithm: &str) -> bool {
    let len = digest(algorithm, &[], &[]).map(|hash| hash.len() + SALT_BYTES);
    STANDARD
        .decode(stored)
        .is_ok_and(|bytes| Some(bytes.len()) == len)
}

/// Hashes a password with SHA-256 and a fresh salt.
pub fn hash(password: &[u8]) -> String {
    let mut salt = [0u8; SALT_BYTES];
    getrandom::fill(&mut salt).expect("the system has randomness");
    let mut out = salt.to_vec();
    out.extend(digest(SHA256, &salt, password).unwrap_or_default());
    STANDARD.encode(out)
}

/// Whether the password fits the hash, compared in constant time. An empty or malformed hash fits no
/// password.
pub fn verify(password: &[u8], stored: &str, algorithm: &str) -> bool {
    let Ok(stored) = STANDARD.decode(stored) else {
        return false;
    };
    let Some((salt, hash)) = stored.split_at_checked(SALT_BYTES) else {
        return false;
    };
    let Some(computed) = digest(algorithm, salt, password) else {
        return false;
    };
    computed.len() == hash.len()
        && computed
            .iter()
            .zip(hash)
            .fold(0, |diff, (a, b)| diff | (a ^ b))
            == 0
}

/// A password as it was typed or written into a file: without the end of its line, of either kind.
pub fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// Asks at the terminal, which does not show what is typed.
///
/// # Errors
/// The terminal cannot be read.
pub fn prompt(into: &mut Vec<u8>) -> io::Result<()> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut terminal = io::stderr();
    terminal.write_all(b"Password: ")?;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let read = stdin.lock().read_until(b'\n', into);
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    terminal.write_all(b"\n")?;
    read.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_password_only() {
        let stored = hash(b"secret");
        assert!(verify(b"secret", &stored, SHA256));
        assert!(!verify(b"Secret", &stored, SHA256));
        assert!(!verify(b"secret", &stored, SHA512));
        assert!(!verify(b"", "", SHA256));
        assert_ne!(stored, hash(b"secret"), "each has a salt of its own");
    }

    #[test]
    fn the_end_of_a_line_is_no_part_of_a_password() {
        for text in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(without_line_end(text.as_bytes()), b"secret");
        }
        assert_eq!(without_line_end(b"a\n\n"), b"a\n");
        assert_eq!(without_line_end(b" a \r\n"), b" a ");
    }

    #[test]
    fn hashes_of_old_exports_are_understood() {
        // Salt 1 2 3 4, and the MD5 of it and "secret", by Python's hashlib.
        assert!(verify(b"secret", "AQIDBDgk9ci8Lfh6CKE9Y0AUfmU=", MD5));
        assert!(!verify(b"secreT", "AQIDBDgk9ci8Lfh6CKE9Y0AUfmU=", MD5));
    }

    #[test]
    fn rabbitmqs_own_example_is_understood() {
        // From RabbitMQ's documentation of credentials: the password is "test12".
        assert!(verify(
            b"test12",
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
            SHA256
        ));
    }
}
