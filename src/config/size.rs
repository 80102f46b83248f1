//! Sizes in bytes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size in bytes: a number, or text such as `"64MiB"` or `"50MB"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub u64);

impl Size {
    /// Reads `"64MiB"`, `"50MB"`, `"1234"`.
    pub fn parse(text: &str) -> Option<Size> {
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..end].parse().ok()?;
        let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit).map(Size)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u64),
            Text(String),
        }
        let right = "a size in bytes, such as 1048576, \"64MiB\" or \"50MB\"";
        match Raw::deserialize(d)
            .map_err(|_| serde::de::Error::custom(format!("expected {right}")))?
        {
            Raw::Number(n) => Ok(Size(n)),
            Raw::Text(t) => Size::parse(&t)
                .ok_or_else(|| serde::de::Error::custom(format!("'{t}': expected {right}"))),
        }
    }
}
