//! Sources without what is not code: comments, the contents of literals, tests. Nothing here knows a rule.

/// Replaces comments and the contents of literals by spaces; newlines stay.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end.min(bytes.len()),
            None => {
                out.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8(out).expect("only whole literals are replaced")
}

/// Where the comment, string or character literal that begins at `at` ends; `None` where none begins.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let find = |from: usize, needle: &[u8]| {
        rest[from..]
            .windows(needle.len())
            .position(|window| window == needle)
            .map(|p| at + from + p + needle.len())
    };
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return Some(find(2, b"\n").map_or(bytes.len(), |end| end - 1));
    }
    if rest.starts_with(b"/*") {
        return Some(find(2, b"*/").unwrap_or(bytes.len()));
    }
    let raw =
        if in_word { 0 } else { rest.iter().take(2).position(|byte| *byte == b'r').map_or(0, |p| p + 1) };
    if raw > 0 && (raw == 1 || rest[0] == b'b') {
        let hashes = rest[raw..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(raw + hashes) == Some(&b'"') {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            return Some(find(raw + hashes + 1, &close).unwrap_or(bytes.len()));
        }
    }
    match rest {
        [b'"', ..] => Some(quoted_end(bytes, at, b'"')),
        [b'\'', b'\\', ..] => Some(quoted_end(bytes, at, b'\'')),
        // A character, not a lifetime: the closing quote is one character away.
        [b'\'', first, ..] => {
            let width = match first {
                0..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(at + width + 2)
        }
        _ => None,
    }
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Blanks what stands under `#[cfg(test)]`: rules of structure are for the program itself.
pub fn without_tests(code: String) -> String {
    let mut out = String::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(if line.trim() == "#[cfg(test)]" { "" } else { line });
        out.push('\n');
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let mut depth = 0;
        let mut opened = false;
        for line in lines.by_ref() {
            out.push('\n');
            depth += line.matches('{').count();
            opened |= depth > 0 || line.trim_end().ends_with(';');
            depth = depth.saturating_sub(line.matches('}').count());
            if opened && depth == 0 {
                break;
            }
        }
    }
    out
}
