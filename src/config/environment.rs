//! Settings from the environment, among names that are not ours.

use std::ffi::OsString;

use super::error::ConfigError;
use super::settings::Config;

/// Prefix of our variables.
const PREFIX: &str = "LEVERET_";

/// What is no setting: the file's name, which the command line knows.
const NO_SETTING: &str = "LEVERET_CONFIG";

/// RabbitMQ's variables for the first user and vhost, which win over ours.
const RABBITMQ: [(&str, [&str; 2]); 3] = [
    ("RABBITMQ_DEFAULT_USER", ["defaults", "user"]),
    ("RABBITMQ_DEFAULT_PASS", ["defaults", "pass"]),
    ("RABBITMQ_DEFAULT_VHOST", ["defaults", "vhost"]),
];

/// Puts settings from the environment into the table. Returns the names that look like ours and are not.
pub(super) fn apply(
    table: &mut toml::Table,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<String>, ConfigError> {
    let defaults =
        toml::Table::try_from(Config::default()).map_err(|e| ConfigError(e.to_string()))?;
    let known = leaves(&defaults);
    let mut strange = Vec::new();
    let mut found = Vec::new();
    for (name, text) in environment {
        // A name that is no UTF-8 is not ours.
        let Ok(name) = name.into_string() else {
            continue;
        };
        let rabbitmqs = RABBITMQ.iter().position(|(its, _)| *its == name);
        if let Some(at) = rabbitmqs {
            let path: Vec<String> = RABBITMQ[at].1.map(str::to_string).to_vec();
            let default = toml::Value::String(String::new());
            found.push((1 + at, name, path, default, text));
            continue;
        }
        if !name.starts_with(PREFIX) || name == NO_SETTING {
            continue;
        }
        match known.iter().find(|(path, _)| variable(path) == name) {
            Some((path, default)) => found.push((0, name, path.clone(), default.clone(), text)),
            None if is_service_link(&name) => {}
            None => {
                let section = defaults.iter().find(|(key, value)| {
                    value.is_table()
                        && name.starts_with(&variable(&[(*key).clone(), String::new()]))
                });
                let Some((section, _)) = section else {
                    strange.push(name);
                    continue;
                };
                let names: Vec<String> = known
                    .iter()
                    .filter(|(path, _)| path.first() == Some(section))
                    .map(|(path, _)| variable(path))
                    .collect();
                return Err(ConfigError(format!(
                    "{name}: no such setting; there are {}",
                    names.join(", ")
                )));
            }
        }
    }
    // RabbitMQ's last, so that they win.
    found.sort_by_key(|(order, ..)| *order);
    for (_, name, path, default, text) in found {
        let text = text
            .into_string()
            .map_err(|text| ConfigError(format!("{name}: {text:?} is not UTF-8")))?;
        let value = typed(&text, &default).ok_or_else(|| {
            ConfigError(format!("{name}: '{text}' is not {}", default.type_str()))
        })?;
        set(table, &path, value);
        table
            .clone()
            .try_into::<Config>()
            .map_err(|e| ConfigError(format!("{name}: {}", e.message())))?;
    }
    strange.sort();
    Ok(strange)
}

/// Whether Kubernetes (or Docker's links) made this name: every pod gets such variables for each service
/// of its namespace, and ours may be called leveret, or leveret-log.
fn is_service_link(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.ends_with("_PORT")
    {
        return true;
    }
    let Some((_, rest)) = name.split_once("_PORT_") else {
        return false;
    };
    let mut words = rest.split('_');
    let number = words.next().is_some_and(|n| n.parse::<u16>().is_ok());
    number && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
}

/// All settings with their paths and defaults.
pub(super) fn leaves(table: &toml::Table) -> Vec<(Vec<String>, toml::Value)> {
    let mut out = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                out.extend(leaves(inner).into_iter().map(|(mut path, v)| {
                    path.insert(0, key.clone());
                    (path, v)
                }));
            }
            leaf => out.push((vec![key.clone()], leaf.clone())),
        }
    }
    out
}

fn variable(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("_").to_uppercase())
}

/// Reads text as the type that the default has.
fn typed(text: &str, default: &toml::Value) -> Option<toml::Value> {
    let trimmed = text.trim();
    Some(match default {
        toml::Value::Integer(_) => toml::Value::Integer(trimmed.parse().ok()?),
        toml::Value::Float(_) => toml::Value::Float(trimmed.parse().ok()?),
        toml::Value::Boolean(_) => toml::Value::Boolean(trimmed.parse().ok()?),
        toml::Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
            toml::Value::Array(items.map(|t| toml::Value::String(t.into())).collect())
        }
        _ => toml::Value::String(text.into()),
    })
}

fn set(table: &mut toml::Table, path: &[String], value: toml::Value) {
    match path {
        [] => {}
        [key] => drop(table.insert(key.clone(), value)),
        [section, rest @ ..] => {
            let inner = table
                .entry(section.clone())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn applied(environment: &[(&str, &str)]) -> Result<(toml::Table, Vec<String>), String> {
        let mut table = toml::Table::new();
        let variables = environment.iter().map(|(a, b)| (a.into(), b.into()));
        let strange = apply(&mut table, variables).map_err(|e| e.to_string())?;
        Ok((table, strange))
    }

    #[test]
    fn what_kubernetes_sets_is_left_alone() {
        let links = [
            ("LEVERET_PORT", "tcp://10.0.0.1:5672"),
            ("LEVERET_PORT_5672_TCP", "tcp://10.0.0.1:5672"),
            ("LEVERET_PORT_5672_TCP_ADDR", "10.0.0.1"),
            ("LEVERET_SERVICE_HOST", "10.0.0.1"),
            ("LEVERET_SERVICE_PORT", "5672"),
            ("LEVERET_SERVICE_PORT_AMQP", "5672"),
            // Of services called leveret-log and leveret-tls.
            ("LEVERET_LOG_PORT", "tcp://10.0.0.1:80"),
            ("LEVERET_TLS_SERVICE_HOST", "10.0.0.1"),
        ];
        let (table, strange) = applied(&links).expect("fine");
        assert!(
            table.is_empty() && strange.is_empty(),
            "{table} {strange:?}"
        );
    }

    #[test]
    fn names_of_no_section_are_told_and_those_of_a_section_refused() {
        let (_, strange) = applied(&[("LEVERET_MODEL_STEPS", "9"), ("PATH", "/")]).expect("fine");
        assert_eq!(strange, ["LEVERET_MODEL_STEPS"]);
        for name in [
            "LEVERET_LOG_LEVELS",
            "LEVERET_PROTOCOL_PORT_MAX",
            "LEVERET_LOG_",
        ] {
            let why = applied(&[(name, "1")]).expect_err(name);
            assert!(why.contains(name) && why.contains("there are"), "{why}");
            assert!(!why.contains("LEVERET_DATA_DIR"), "{why}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_in_our_settings_only() {
        let bad = || OsString::from_vec(vec![0xFF]);
        let mut table = toml::Table::new();
        let others = [(bad(), bad()), ("X".into(), bad())];
        assert!(apply(&mut table, others.into_iter()).is_ok());
        for name in ["LEVERET_LOG_LEVEL", "RABBITMQ_DEFAULT_USER"] {
            let ours = [(name.into(), bad())];
            let why = apply(&mut table, ours.into_iter()).expect_err(name);
            assert!(why.to_string().contains(name), "{why}");
        }
    }

    #[test]
    fn rabbitmqs_variables_win() {
        let both = [
            ("RABBITMQ_DEFAULT_USER", "app"),
            ("LEVERET_DEFAULTS_USER", "other"),
        ];
        let (table, _) = applied(&both).expect("fine");
        assert_eq!(table["defaults"]["user"].as_str(), Some("app"));
    }
}
