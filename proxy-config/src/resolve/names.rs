//! Host names: how a short one is completed, which pattern covers which name, what a service is called.
//!
//! Pure text; nothing here knows which hosts exist.

const SERVICE_SUFFIX: &str = ".svc.cluster.local";

/// Completes a name without dots with the namespace of the resource it is written in; any other name is
/// taken as it is. Lower case.
pub(crate) fn expand(host: &str, namespace: &str) -> String {
    let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || host.starts_with('*') || host.contains('.') || host.contains(':') {
        return host;
    }
    service_host(&host, namespace)
}

/// `name.namespace.svc.cluster.local`.
pub(crate) fn service_host(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}{SERVICE_SUFFIX}").to_ascii_lowercase()
}

/// Name and namespace of `name.namespace.svc.cluster.local`.
pub(crate) fn service_parts(host: &str) -> Option<(&str, &str)> {
    let (name, namespace) = host.strip_suffix(SERVICE_SUFFIX)?.rsplit_once('.')?;
    (!name.is_empty() && !namespace.is_empty()).then_some((name, namespace))
}

/// Every name under which a caller in `caller` reaches `host`, the full one first.
pub(crate) fn aliases(host: &str, caller: &str) -> Vec<String> {
    let mut names = vec![host.to_owned()];
    if let Some((name, namespace)) = service_parts(host) {
        names.push(format!("{name}.{namespace}.svc"));
        names.push(format!("{name}.{namespace}"));
        if namespace == caller && name != "*" {
            names.push(name.to_owned());
        }
    }
    names
}

/// Whether `host` is a pattern rather than one name.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether every name that `host` (a name or a pattern) stands for is covered by `pattern`.
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == host,
        Some(suffix) => match host.strip_prefix('*') {
            Some(narrower) => narrower.ends_with(suffix),
            // `*.foo.com` does not cover `.foo.com` itself.
            None => host.len() > suffix.len() && host.ends_with(suffix),
        },
    }
}

/// The names that both patterns cover: the narrower of the two, or nothing.
pub(crate) fn intersect<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

/// Orders patterns by how much they single out: exact names above patterns, longer suffixes above shorter.
pub(crate) fn specificity(pattern: &str) -> (bool, usize) {
    (!is_wildcard(pattern), pattern.len())
}

/// Whether the name looks as if it lived outside the cluster.
pub(crate) fn looks_external(host: &str) -> bool {
    host.contains('.')
        && !host.ends_with(".local")
        && !host.ends_with(".svc")
        && host.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_dots_is_completed_with_the_namespace_of_the_rule() {
        for (written, expected) in [
            ("reviews", "reviews.prod.svc.cluster.local"),
            ("Reviews", "reviews.prod.svc.cluster.local"),
            ("reviews.other", "reviews.other"),
            ("reviews.other.svc.cluster.local", "reviews.other.svc.cluster.local"),
            ("shop.example.com.", "shop.example.com"),
            ("*", "*"),
            ("*.example.com", "*.example.com"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(expand(written, "prod"), expected, "{written}");
        }
    }

    #[test]
    fn a_service_is_called_by_four_names_at_home_and_three_from_elsewhere() {
        let host = "a.n.svc.cluster.local";
        assert_eq!(aliases(host, "n"), [host, "a.n.svc", "a.n", "a"]);
        assert_eq!(aliases(host, "m"), [host, "a.n.svc", "a.n"]);
        assert_eq!(aliases("shop.example.com", "n"), ["shop.example.com"]);
    }

    #[test]
    fn a_pattern_covers_what_it_stands_for() {
        for (pattern, host, expected) in [
            ("*", "a.com", true),
            ("*", "*.com", true),
            ("*.com", "*", false),
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "a.b.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*.foo.com", ".foo.com", false),
            ("*foo.com", "barfoo.com", true),
            ("*.com", "*.foo.com", true),
            ("*.foo.com", "*.com", false),
            ("*.foo.com", "*.foo.com", true),
            ("a.com", "a.com", true),
            ("a.com", "*.com", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn the_narrower_of_two_overlapping_patterns_is_what_both_cover() {
        for (a, b, expected) in [
            ("*", "a.com", Some("a.com")),
            ("a.com", "*", Some("a.com")),
            ("*.com", "*.b.com", Some("*.b.com")),
            ("a.com", "b.com", None),
            ("*.a.com", "*.b.com", None),
        ] {
            assert_eq!(intersect(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn an_exact_name_is_more_specific_than_any_pattern() {
        assert!(specificity("a.b") > specificity("*.very.long.example.com"));
        assert!(specificity("*.b.com") > specificity("*.com"));
        assert!(specificity("*.com") > specificity("*"));
    }

    #[test]
    fn names_under_local_or_svc_do_not_look_external() {
        for (host, expected) in [
            ("shop.example.com", true),
            ("a.n.svc.cluster.local", false),
            ("a.n.svc", false),
            ("a", false),
            ("10.1.2.3", false),
        ] {
            assert_eq!(looks_external(host), expected, "{host}");
        }
    }
}
