use super::*;

fn fits(pattern: &str, name: &str) -> bool {
    let p = Pattern::new(pattern).unwrap_or_else(|e| panic!("{e}"));
    p.is_match(name.as_bytes())
}

/// What RabbitMQ 4.3.6 answers for each: its patterns are PCRE's, over octets.
#[test]
fn patterns_are_perls() {
    for (pattern, name, expected) in [
        (r"^(?!amq\.).*", "amq.x", false),
        (r"^(?!amq\.).*", "bmq.x", true),
        (r"(?<=a)b", "ab", true),
        (r"(?<=a|bc)b", "ab", true),
        (r"^(?<=a)b", "ab", false),
        (r"(?<!a)b", "ab", false),
        (r"^\Qa.b\E$", "a.b", true),
        (r"^\Qa.b\E$", "axb", false),
        (r"^\Qa.b", "a.bc", true),
        (r"^a\Eb$", "ab", true),
        (r"^(a)\1$", "aa", true),
        (r"^(a|b)\g{-1}\g1$", "bbb", true),
        (r"^(?<n>a|b)\k<n>$", "ab", false),
        (r"^(?P<n>a)(?P=n)$", "aa", true),
        (r"^foo\Z", "foo", true),
        (r"^foo\Z", "foo\n", true),
        (r"^foo$", "foo\n", true),
        (r"^foo\z", "foo\n", false),
        (r"^a{$", "a{", true),
        (r"^a{x}$", "a{x}", true),
        (r"^a{,3}$", "aa", true),
        (r"^a{,3}$", "a{,3}", false),
        (r"^a{ 1, 3 }$", "aa", true),
        (r"^}$", "}", true),
        (r"^[a&&b]+$", "a&b", true),
        (r"^\<a$", "<a", true),
        (r"^[[a]b]$", "[b]", true),
        (r"^[]]$", "]", true),
        (r"^[^]]$", "]", false),
        (r"^[\Qa]\E]$", "]", true),
        (r"^[[:word:]]+$", "a_9", true),
        (r"^[[:^digit:]]$", "a", true),
        (r"^[[:alpha:]].$", "é", false),
        (r"^[\w-]+$", "a-b", true),
        (r"^[a-c-]+$", "b-", true),
        (r"^a++b$", "aab", true),
        (r"^(?>a+)ab$", "aab", false),
        (r"^(?i)a$", "A", true),
        (r"^(?i)[^a]$", "A", false),
        (r"^(?i:a)b$", "AB", false),
        (r"^(?i)É$", "é", false),
        ("^(?x) a #b\n c$", "ac", true),
        ("(?m)^a$", "b\na", true),
        ("(?m:^a$)$", "a\nb", false),
        (r"^\h$", " ", true),
        (r"^\x{e9}$", "é", false),
        (r"^\w.$", "é", false),
        (r"^\W\W$", "é", true),
        (r"^\p{L}.$", "é", true),
        (r"^\p{L}$", "é", false),
        (r"^a\b.", "aé", true),
        (r"^\bé", "é", false),
        (r"^é?$", "é", true),
        (r"^\é$", "é", true),
        (r"^..$", "é", true),
        (r"^\141$", "a", true),
        (r"^\07$", "a", false),
        (r"^a(?#b)c$", "ac", true),
        ("", "", true),
        ("", "a", false),
        ("^.*$", "a\nb", false),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn what_is_no_pattern_or_cannot_be_done_is_refused_by_name() {
    for (pattern, told) in [
        ("(", "a ')' is missing"),
        ("a)", "too many"),
        ("[a", "']' is missing"),
        ("^*a$", "'*'"),
        ("a**", "'*'"),
        ("a{2}{2}", "'{2}'"),
        ("[z-a]", "range"),
        (r"[\d-z]", "range"),
        (r"[a-\d]", "range"),
        (r"\y", r"'\y'"),
        (r"\K", r"'\K'"),
        (r"\R", r"'\R'"),
        (r"\X", r"'\X'"),
        (r"\1", "group 1"),
        (r"(a)\g{-2}", "group 0"),
        (r"\x{1e9}", "octet"),
        (r"\p{Nothing}", "Nothing"),
        ("(*UTF)a", "(*UTF)"),
        ("(?R)", "(?R"),
        ("(?|a)", "(?|"),
        ("(?(1)a)", "(?("),
        ("(?<1>a)", "name"),
        ("[[:what:]]", "what"),
        ("a{65536}", "65535"),
        ("a{99999999999999999999}", "65535"),
        ("(?:(?:a{65535}){65535}){65535}", "size limit"),
        ("a\\", "behind"),
    ] {
        let e = Pattern::new(pattern).expect_err(pattern).to_string();
        assert!(
            e.starts_with(&format!("pattern '{pattern}': ")) && e.contains(told),
            "{e}"
        );
    }
}

#[test]
fn what_takes_too_long_is_no_match() {
    let name = "a".repeat(200) + "c";
    assert!(fits(r"^(?:a(?=[ac])|a)+c$", &name));
    assert!(!fits(r"^(?:a(?=[ac])|a)+$", &name));
    // Nor is it one of what must not match.
    assert!(!fits(r"^(?!(?:a(?=[ac])|a)+$)", &name));
}

#[test]
fn nothing_written_is_beyond_us() {
    let parts = [
        "(", ")", "[", "]", "{", "}", "?", "*", "+", "\\", "^", "-", "|", "<", "=", "!", "P", "Q",
        "E", "1", ",", ":", "#", "é", "x", "g", "k", "p", "c", "o", ".", "a",
    ];
    let mut seed = 1_u64;
    for _ in 0..3_000 {
        let mut pattern = String::new();
        for _ in 0..8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pattern += parts[(seed >> 33) as usize % parts.len()];
        }
        if let Ok(p) = Pattern::new(&pattern) {
            p.is_match(b"a?\\{1,}");
        }
    }
}
