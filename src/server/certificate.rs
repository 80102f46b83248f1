//! The user name in a client's certificate, for the mechanism EXTERNAL; as in RabbitMQ's
//! `rabbitmq_auth_mechanism_ssl`.

use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OidRegistry;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::config::LoginFrom;

/// The user name, if the certificate has one where it is looked for. What cannot be read is no name: two
/// certificates that differ must not be one user. Its signature was checked in the TLS
/// handshake.
pub(super) fn user_name(certificate: &[u8], from: LoginFrom) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    match from {
        LoginFrom::DistinguishedName => distinguished_name(certificate.subject()),
        LoginFrom::CommonName => {
            // Several are joined, as RabbitMQ does.
            let names = certificate.subject().iter_common_name().map(text);
            names
                .collect::<Option<Vec<_>>>()
                .map(|names| names.join(","))
        }
        LoginFrom::SubjectAlternativeName => {
            let names = certificate.subject_alternative_name().ok()??;
            names
                .value
                .general_names
                .iter()
                .find_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_string()),
                    _ => None,
                })
        }
    }
    .filter(|name| !name.is_empty())
}

/// The subject as RFC 2253 writes it: the most specific part first.
fn distinguished_name(subject: &X509Name<'_>) -> Option<String> {
    let known = OidRegistry::default().with_x509();
    let parts: Option<Vec<String>> = subject
        .iter()
        .map(|relative| {
            let attributes: Option<Vec<String>> = relative
                .iter()
                .map(|a| {
                    let kind = known.get(a.attr_type()).map_or_else(
                        || a.attr_type().to_id_string(),
                        |o| short(o.sn()).to_string(),
                    );
                    Some(format!("{kind}={}", escaped(&text(a)?)))
                })
                .collect();
            Some(attributes?.join("+"))
        })
        .collect();
    let mut parts = parts?;
    parts.reverse();
    Some(parts.join(","))
}

/// The text of an attribute, in any of the string types that certificates have.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let octets = attribute.attr_value().data;
    match attribute.attr_value().tag() {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::NumericString
        | Tag::Ia5String
        | Tag::VisibleString => String::from_utf8(octets.to_vec()).ok(),
        // As everybody reads it, whatever T.61 said.
        Tag::TeletexString => Some(octets.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (units, rest) = octets.as_chunks::<2>();
            let units = units.iter().copied().map(u16::from_be_bytes);
            let text: Result<String, _> = char::decode_utf16(units).collect();
            text.ok().filter(|_| rest.is_empty())
        }
        Tag::UniversalString => {
            let (units, rest) = octets.as_chunks::<4>();
            let units = units.iter().copied().map(u32::from_be_bytes);
            let text: Option<String> = units.map(char::from_u32).collect();
            text.filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// The registry has long names where RFC 2253 has short ones.
fn short(name: &str) -> &str {
    match name {
        "commonName" => "CN",
        "organizationName" => "O",
        "organizationalUnit" | "organizationalUnitName" => "OU",
        "localityName" => "L",
        "stateOrProvinceName" => "ST",
        "countryName" => "C",
        other => other,
    }
}

fn escaped(value: &str) -> String {
    let mut out = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let at_an_end = c == ' ' && (at == 0 || at == last);
        if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && at == 0)
            || at_an_end
        {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    fn certificate(names: Vec<String>) -> Vec<u8> {
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CountryName, "DE");
        subject.push(DnType::OrganizationName, "Hares, Inc.");
        subject.push(DnType::CommonName, "leveret ");
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    #[test]
    fn the_name_is_where_it_is_looked_for() {
        let der = certificate(vec!["client.example".into(), "other.example".into()]);
        let name = |from| user_name(&der, from);
        assert_eq!(
            name(LoginFrom::DistinguishedName).as_deref(),
            Some("CN=leveret\\ ,O=Hares\\, Inc.,C=DE")
        );
        assert_eq!(name(LoginFrom::CommonName).as_deref(), Some("leveret "));
        assert_eq!(
            name(LoginFrom::SubjectAlternativeName).as_deref(),
            Some("client.example")
        );
    }

    /// A certificate with these common names.
    fn named(values: Vec<DnValue>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        let kinds = [DnType::CommonName, DnType::OrganizationalUnitName];
        for (kind, value) in kinds.into_iter().zip(values) {
            params.distinguished_name.push(kind, value);
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    fn replaced(der: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
        assert_eq!(what.len(), with.len());
        let at = der.windows(what.len()).position(|w| w == what);
        let mut der = der.to_vec();
        // The subject is the last; a self-signed one has it twice.
        let at = at.expect("there");
        der[at..][..with.len()].copy_from_slice(with);
        if let Some(at) = der.windows(what.len()).position(|w| w == what) {
            der[at..][..with.len()].copy_from_slice(with);
        }
        der
    }

    #[test]
    fn names_of_every_string_type_are_read() {
        let types: [fn(&str) -> DnValue; 6] = [
            |s| DnValue::Utf8String(s.into()),
            |s| DnValue::PrintableString(s.try_into().expect("printable")),
            |s| DnValue::Ia5String(s.try_into().expect("IA5")),
            |s| DnValue::TeletexString(s.try_into().expect("teletex")),
            |s| DnValue::BmpString(s.try_into().expect("BMP")),
            |s| DnValue::UniversalString(s.try_into().expect("universal")),
        ];
        for name in ["alice", "mallory"] {
            for of in types {
                let der = named(vec![of(name)]);
                let read = |from| user_name(&der, from).expect("a name");
                assert_eq!(read(LoginFrom::CommonName), name);
                assert_eq!(read(LoginFrom::DistinguishedName), format!("CN={name}"));
            }
        }
        let wide = DnValue::BmpString("лев".try_into().expect("BMP"));
        let name = user_name(&named(vec![wide]), LoginFrom::CommonName);
        assert_eq!(name.as_deref(), Some("лев"));
    }

    #[test]
    fn what_cannot_be_read_is_no_name() {
        let ou = || DnValue::Utf8String("ops".into());
        // Half of a pair, a number that is no character, octets that are no UTF-8, another type, octets left over.
        let bmp = DnValue::BmpString("ab".try_into().expect("BMP"));
        let universal = DnValue::UniversalString("a".try_into().expect("universal"));
        let utf8_of = |text: &str| DnValue::Utf8String(text.into());
        let utf8 = || utf8_of("ab");
        for (value, what, with) in [
            (bmp, &b"\x1e\x04\0a\0b"[..], &b"\x1e\x04\0a\xd8\0"[..]),
            (universal, b"\x1c\x04\0\0\0a", b"\x1c\x04\0\x11\0\0"),
            (utf8(), b"\x0c\x02ab", b"\x0c\x02a\xff"),
            (utf8(), b"\x0c\x02ab", b"\x04\x02ab"),
            (utf8_of("abc"), b"\x0c\x03abc", b"\x1e\x03\0ab"),
            (utf8_of("abcde"), b"\x0c\x05abcde", b"\x1c\x05\0\0\0ab"),
        ] {
            let der = replaced(&named(vec![value, ou()]), what, with);
            assert_eq!(user_name(&der, LoginFrom::CommonName), None);
            assert_eq!(user_name(&der, LoginFrom::DistinguishedName), None);
        }
    }

    #[test]
    fn several_common_names_are_joined() {
        // The second one's type is made that of the first in the octets: organizationalUnitName is 2.5.4.11.
        let two =
            |a: &str, b: &str| vec![DnValue::Utf8String(a.into()), DnValue::Utf8String(b.into())];
        let der = replaced(&named(two("one", "two")), b"\x55\x04\x0b", b"\x55\x04\x03");
        let name = user_name(&der, LoginFrom::CommonName);
        assert_eq!(name.as_deref(), Some("one,two"));
    }

    #[test]
    fn without_a_name_there_is_no_user() {
        let der = certificate(Vec::new());
        assert_eq!(user_name(&der, LoginFrom::SubjectAlternativeName), None);
        assert_eq!(user_name(b"no certificate", LoginFrom::CommonName), None);
        let der = named(vec![DnValue::Utf8String(String::new())]);
        assert_eq!(user_name(&der, LoginFrom::CommonName), None);
    }
}
