//! Keeps `src/protocol/methods` equal to what `amqp-spec/amqp0-9-1.toml` says.
//!
//! `UPDATE=1 cargo test --test codegen` rewrites the generated files.

#![allow(
    clippy::unwrap_used,
    reason = "a test; writing to a string cannot fail"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(serde::Deserialize)]
struct Spec {
    class: Vec<Class>,
}

#[derive(serde::Deserialize)]
struct Class {
    id: u16,
    name: String,
    about: String,
    methods: Vec<String>,
}

struct Method {
    id: u16,
    name: String,
    direction: String,
    about: String,
    fields: Vec<(String, String)>,
}

fn parse(line: &str) -> Method {
    let (head, about) = line.split_once('|').expect("a description after |");
    let mut words = head.split_whitespace();
    Method {
        id: words.next().and_then(|w| w.parse().ok()).expect("an id"),
        name: words.next().expect("a name").to_string(),
        direction: words.next().expect("a direction").to_string(),
        about: about.trim().to_string(),
        fields: words
            .map(|w| w.split_once(':').expect("field:domain"))
            .map(|(f, d)| (f.to_string(), d.to_string()))
            .collect(),
    }
}

fn camel(name: &str) -> String {
    let capital = |w: &str| w[..1].to_uppercase() + &w[1..];
    name.split('_')
        .filter(|w| !w.is_empty())
        .map(capital)
        .collect()
}

fn wire_name(name: &str) -> String {
    name.trim_end_matches('_').replace('_', "-")
}

fn rust_type(domain: &str) -> &'static str {
    match domain {
        "bit" => "bool",
        "octet" => "u8",
        "short" => "u16",
        "long" => "u32",
        "longlong" => "u64",
        "shortstr" => "&'a str",
        "shortbytes" => "ShortBytes<'a>",
        "longstr" => "&'a [u8]",
        "table" => "TableRef<'a>",
        other => panic!("no such domain: {other}"),
    }
}

fn borrows(m: &Method) -> bool {
    let mut used = m.fields.iter().filter(|(f, _)| !f.starts_with('_'));
    used.any(|(_, d)| matches!(d.as_str(), "shortstr" | "shortbytes" | "longstr" | "table"))
}

/// Fields in wire order, runs of bits joined.
fn groups(m: &Method) -> Vec<Vec<(String, String)>> {
    let mut out: Vec<Vec<(String, String)>> = vec![];
    for f in &m.fields {
        match out.last_mut() {
            Some(run) if f.1 == "bit" && run[0].1 == "bit" => run.push(f.clone()),
            _ => out.push(vec![f.clone()]),
        }
    }
    out
}

fn render_class(class: &Class) -> String {
    let mut s = format!(
        "//! Class `{}` ({}). {}\n//!\n//! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.\n\n",
        class.name, class.id, class.about
    );
    let methods: Vec<Method> = class.methods.iter().map(|l| parse(l)).collect();
    let tables = methods.iter().any(|m| {
        m.fields
            .iter()
            .any(|(f, d)| d == "table" && !f.starts_with('_'))
    });
    s += "use bytes::BytesMut;\n\n";
    if tables {
        s += "use super::super::field_table::TableRef;\n";
    }
    if methods
        .iter()
        .any(|m| m.fields.iter().any(|(_, d)| d == "shortbytes"))
    {
        s += "use super::super::short::ShortBytes;\n";
    }
    let writer = if methods.iter().any(|m| !m.fields.is_empty()) {
        ", Writer"
    } else {
        ""
    };
    writeln!(s, "use super::super::wire::{{Malformed, Reader{writer}}};\nuse super::{{EncodeMethod, MethodId}};\n").unwrap();
    for m in &methods {
        let name = camel(&m.name);
        let lt = if borrows(m) { "<'a>" } else { "" };
        let anon = if borrows(m) { "<'_>" } else { "" };
        let who = match m.direction.as_str() {
            "C" => "Sent by the client.",
            "S" => "Sent by the server.",
            _ => "Sent by either side.",
        };
        let used: Vec<_> = m
            .fields
            .iter()
            .filter(|(f, _)| !f.starts_with('_'))
            .collect();
        writeln!(
            s,
            "/// `{}.{}`: {} {}",
            class.name,
            wire_name(&m.name),
            m.about,
            who
        )
        .unwrap();
        writeln!(s, "#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]").unwrap();
        if used.is_empty() {
            writeln!(s, "pub struct {name};\n").unwrap();
        } else {
            writeln!(s, "pub struct {name}{lt} {{").unwrap();
            for (f, d) in &used {
                writeln!(
                    s,
                    "/// `{}`, {}.\npub {f}: {},",
                    wire_name(f),
                    d,
                    rust_type(d)
                )
                .unwrap();
            }
            writeln!(s, "}}\n").unwrap();
        }
        let life = if borrows(m) { "impl<'a>" } else { "impl" };
        let arg_life = if borrows(m) { "'a" } else { "'_" };
        let r = if m.fields.is_empty() { "_r" } else { "r" };
        writeln!(s, "{life} {name}{lt} {{").unwrap();
        writeln!(
            s,
            "pub(super) fn decode({r}: &mut Reader<{arg_life}>) -> Result<Self, Malformed> {{"
        )
        .unwrap();
        for run in groups(m) {
            if run[0].1 == "bit" {
                if run.iter().all(|(f, _)| f.starts_with('_')) {
                    writeln!(s, "r.octet()?;").unwrap();
                    continue;
                }
                writeln!(s, "let bits = r.octet()?;").unwrap();
                for (i, (f, _)) in run.iter().enumerate() {
                    if !f.starts_with('_') {
                        writeln!(s, "let {f} = bits & {:#04x} != 0;", 1 << i).unwrap();
                    }
                }
            } else {
                let (f, d) = &run[0];
                let read = match d.as_str() {
                    "shortstr" => "short_str",
                    "shortbytes" => "short_bytes",
                    "longstr" => "long_str",
                    other => other,
                };
                if f.starts_with('_') {
                    writeln!(s, "r.{read}()?;").unwrap();
                } else {
                    writeln!(s, "let {f} = r.{read}()?;").unwrap();
                }
            }
        }
        if used.is_empty() {
            writeln!(s, "Ok({name})\n}}\n}}\n").unwrap();
        } else {
            let list: Vec<_> = used.iter().map(|(f, _)| f.as_str()).collect();
            writeln!(s, "Ok({name} {{ {} }})\n}}\n}}\n", list.join(", ")).unwrap();
        }
        writeln!(s, "impl EncodeMethod for {name}{anon} {{").unwrap();
        writeln!(
            s,
            "const ID: MethodId = MethodId {{ class: {}, method: {} }};\n",
            class.id, m.id
        )
        .unwrap();
        let mut fixed = 0;
        let mut sum = String::new();
        let mut body = String::new();
        for run in groups(m) {
            let (f, d) = &run[0];
            let reserved = f.starts_with('_');
            match d.as_str() {
                "bit" => {
                    fixed += 1;
                    let used = run
                        .iter()
                        .enumerate()
                        .filter(|(_, (f, _))| !f.starts_with('_'));
                    let bits: Vec<_> = used
                        .map(|(i, (f, _))| {
                            if i == 0 {
                                format!("u8::from(self.{f})")
                            } else {
                                format!("u8::from(self.{f}) << {i}")
                            }
                        })
                        .collect();
                    let bits = if bits.is_empty() {
                        "0".into()
                    } else {
                        bits.join(" | ")
                    };
                    writeln!(body, "w.octet({bits});").unwrap();
                }
                "octet" | "short" | "long" | "longlong" => {
                    fixed += match d.as_str() {
                        "octet" => 1,
                        "short" => 2,
                        "long" => 4,
                        _ => 8,
                    };
                    let value = if reserved {
                        "0".into()
                    } else {
                        format!("self.{f}")
                    };
                    writeln!(body, "w.{d}({value});").unwrap();
                }
                "shortstr" | "shortbytes" => {
                    fixed += 1;
                    if reserved {
                        writeln!(body, "w.octet(0);").unwrap();
                    } else {
                        write!(sum, " + self.{f}.len()").unwrap();
                        let write = d.replace("short", "short_");
                        writeln!(body, "w.{write}(self.{f});").unwrap();
                    }
                }
                "longstr" => {
                    fixed += 4;
                    if reserved {
                        writeln!(body, "w.long(0);").unwrap();
                    } else {
                        write!(sum, " + self.{f}.len()").unwrap();
                        writeln!(body, "w.long_str(self.{f});").unwrap();
                    }
                }
                _ => {
                    fixed += 4;
                    write!(sum, " + self.{f}.as_bytes().len()").unwrap();
                    writeln!(body, "w.long_str(self.{f}.as_bytes());").unwrap();
                }
            }
        }
        writeln!(s, "fn encoded_len(&self) -> usize {{ {fixed}{sum} }}\n").unwrap();
        let buf = if body.is_empty() { "_buf" } else { "buf" };
        writeln!(s, "fn encode(&self, {buf}: &mut BytesMut) {{").unwrap();
        if !body.is_empty() {
            writeln!(s, "let mut w = Writer(buf);\n{body}").unwrap();
        }
        writeln!(s, "}}\n}}\n").unwrap();
    }
    s
}

fn render_mod(spec: &Spec) -> String {
    let mut s = String::from(
        "//! All methods, decoded: one struct each, borrowing from the frame.\n//!\n\
         //! Generated from `amqp-spec/amqp0-9-1.toml` by `tests/codegen.rs`.\n\n\
         use std::fmt;\n\nuse bytes::BytesMut;\n\nuse super::wire::{DecodeError, Malformed, Reader};\n\n",
    );
    for c in &spec.class {
        writeln!(s, "pub mod {};", c.name).unwrap();
    }
    s += "\npub use super::method_id::MethodId;\n\n";
    s += "/// A method that can be written to the wire.\npub trait EncodeMethod {\n/// Its class and method id.\nconst ID: MethodId;\n\n/// Octets of the arguments.\nfn encoded_len(&self) -> usize;\n\n/// Appends the arguments.\nfn encode(&self, buf: &mut BytesMut);\n}\n\n";
    s += "/// A method as it came in.\n#[derive(Clone, Copy, Debug, Eq, PartialEq)]\npub enum Method<'a> {\n";
    let mut variants = vec![];
    for c in &spec.class {
        for m in c.methods.iter().map(|l| parse(l)) {
            let lt = if borrows(&m) { "<'a>" } else { "" };
            let v = format!("{}{}", camel(&c.name), camel(&m.name));
            writeln!(
                s,
                "/// `{}.{}`\n{v}({}::{}{lt}),",
                c.name,
                wire_name(&m.name),
                c.name,
                camel(&m.name)
            )
            .unwrap();
            variants.push((v, c, m));
        }
    }
    s += "}\n\nimpl<'a> Method<'a> {\n/// Decodes the payload of a method frame.\n///\n/// # Errors\n/// [`DecodeError`]: an unknown method, or arguments that do not decode.\npub fn decode(payload: &'a [u8]) -> Result<Method<'a>, DecodeError> {\n\
          let mut r = Reader::new(payload);\nlet id = r.method_id().map_err(|e| e.of(payload))?;\nlet r = &mut r;\nlet decoded = match (id.class, id.method) {\n";
    for (v, c, m) in &variants {
        writeln!(
            s,
            "({}, {}) => {}::{}::decode(r).map(Method::{v}),",
            c.id,
            m.id,
            c.name,
            camel(&m.name)
        )
        .unwrap();
    }
    s += "_ => return Err(DecodeError::UnknownMethod(id)),\n};\nif decoded.is_ok() && !r.rest().is_empty() {\n// As in RabbitMQ: what is too long is as wrong as what is too short.\nreturn Err(Malformed::Syntax.of(payload));\n}\ndecoded.map_err(|e: Malformed| e.of(payload))\n}\n\n/// Its class and method id.\npub fn id(&self) -> MethodId {\nmatch self {\n";
    for (v, c, m) in &variants {
        writeln!(s, "Method::{v}(_) => {}::{}::ID,", c.name, camel(&m.name)).unwrap();
    }
    s += "}\n}\n}\n\nimpl fmt::Display for MethodId {\nfn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {\nlet name = match (self.class, self.method) {\n";
    for (_, c, m) in &variants {
        writeln!(
            s,
            "({}, {}) => \"{}.{}\",",
            c.id,
            m.id,
            c.name,
            wire_name(&m.name)
        )
        .unwrap();
    }
    s +=
        "(class, method) => return write!(f, \"{class}.{method}\"),\n};\nf.write_str(name)\n}\n}\n";
    s
}

fn formatted(source: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("rustfmt is installed");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(source.as_bytes())
        .expect("rustfmt reads");
    let out = child.wait_with_output().expect("rustfmt ends");
    assert!(out.status.success(), "rustfmt refused:\n{source}");
    String::from_utf8(out.stdout).expect("UTF-8")
}

#[test]
fn generated_methods_are_what_the_specification_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        std::fs::read_to_string(root.join("amqp-spec/amqp0-9-1.toml")).expect("the specification");
    let spec: Spec = toml::from_str(&text).expect("valid TOML");
    let dir = root.join("src/protocol/methods");
    let mut files = vec![("mod.rs".to_string(), formatted(&render_mod(&spec)))];
    for class in &spec.class {
        files.push((
            format!("{}.rs", class.name),
            formatted(&render_class(class)),
        ));
    }
    for (name, want) in files {
        let path = dir.join(&name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &want).expect("writable");
        }
        let have = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            have == want,
            "{} is stale: run UPDATE=1 cargo test --test codegen",
            path.display()
        );
    }
}
