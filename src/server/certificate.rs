//! The user name in a client's certificate, for the mechanism EXTERNAL; as in RabbitMQ's
//! `rabbitmq_auth_mechanism_ssl`.

use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OidRegistry;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::config::LoginFrom;

/// The user name, if the certificate has one where it is looked for. Its signature was checked in the TLS
/// handshake.
pub(super) fn user_name(certificate: &[u8], from: LoginFrom) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    match from {
        LoginFrom::DistinguishedName => Some(distinguished_name(certificate.subject())),
        LoginFrom::CommonName => {
            let name = certificate.subject().iter_common_name().next()?;
            name.as_str().ok().map(str::to_string)
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
fn distinguished_name(subject: &X509Name<'_>) -> String {
    let known = OidRegistry::default().with_x509();
    let parts: Vec<String> = subject
        .iter()
        .map(|relative| {
            let attributes: Vec<String> = relative
                .iter()
                .map(|a| {
                    let kind = known.get(a.attr_type()).map_or_else(
                        || a.attr_type().to_id_string(),
                        |o| short(o.sn()).to_string(),
                    );
                    format!("{kind}={}", escaped(a.as_str().unwrap_or("")))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
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
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

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

    #[test]
    fn without_a_name_there_is_no_user() {
        let der = certificate(Vec::new());
        assert_eq!(user_name(&der, LoginFrom::SubjectAlternativeName), None);
        assert_eq!(user_name(b"no certificate", LoginFrom::CommonName), None);
    }
}
