//! Access tokens by their prefix, length, alphabet and, where the format has one, checksum. Nothing is guessed from
//! how random a text looks.

use super::{Check, Subject};
use crate::report::Severity::{Error, Warning};
use base64::Engine as _;

/// What begins a token, and what looks closer.
pub(super) const NEEDLES: &[(&str, Check)] = &[
    ("AKIA", aws_id),
    ("ASIA", aws_id),
    ("aws_secret_access_key", aws_secret),
    ("AWS_SECRET_ACCESS_KEY", aws_secret),
    ("AccountKey=", azure),
    ("ghp_", github),
    ("gho_", github),
    ("ghu_", github),
    ("ghs_", github),
    ("ghr_", github),
    ("github_pat_", github_fine),
    ("npm_", npm),
    ("glpat-", gitlab),
    ("gldt-", gitlab),
    ("glrt-", gitlab),
    ("xoxb-", slack),
    ("xoxp-", slack),
    ("xoxa-", slack),
    ("xoxe-", slack),
    ("xoxr-", slack),
    ("xoxs-", slack),
    ("xapp-", slack),
    ("AIza", google),
    ("pypi-AgE", pypi),
    ("dckr_pat_", docker),
    ("sk_live_", stripe),
    ("rk_live_", stripe),
    ("hvs.", vault),
    ("eyJhbGciOi", jwt),
    ("eyJ0eXAiOi", jwt),
    ("eyJraWQiOi", jwt),
    ("eyJlbmMiOi", jwt),
];

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn url_safe(b: u8) -> bool {
    word(b) || b == b'-'
}

/// The bytes from `end` on that are in the alphabet, if the match does not begin inside of a longer word.
fn run(window: &[u8], start: usize, end: usize, alphabet: fn(u8) -> bool) -> Option<&[u8]> {
    let before = start.checked_sub(1).and_then(|i| window.get(i));
    if before.is_some_and(|&b| url_safe(b) || b"+/".contains(&b)) {
        return None;
    }
    let rest = window.get(end..)?;
    rest.get(..rest.iter().take_while(|b| alphabet(**b)).count())
}

/// Documentation writes `xxxxxxxx`, `EXAMPLE` and words where a token would stand.
fn placeholder(body: &[u8]) -> bool {
    let mut seen = [false; 256];
    for &b in body {
        if let Some(seen) = seen.get_mut(usize::from(b)) {
            *seen = true;
        }
    }
    seen.iter().filter(|seen| **seen).count() < 8
        || memchr::memmem::find(body, b"EXAMPLE").is_some()
        || !body.iter().any(u8::is_ascii_digit)
        || !body.iter().any(u8::is_ascii_alphabetic)
}

fn token(what: &str) -> (Subject, String) {
    (Subject::Token(Error), what.to_owned())
}

/// AKIA (long-lived) or ASIA (of a session), then 16 characters of base32 (AWS IAM user guide, unique identifiers).
fn aws_id(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, |b| b.is_ascii_alphanumeric())?;
    let base32 = body.iter().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(b));
    (body.len() == 16 && base32 && !placeholder(body) && window.get(end + 16) != Some(&b'/'))
        .then(|| token("an access key id of AWS"))
}

/// The name of the setting, `=` or `:`, and 40 characters.
fn aws_secret(window: &[u8], _: usize, end: usize) -> Option<(Subject, String)> {
    let rest = window.get(end..)?;
    let skip = rest.iter().take_while(|b| b" \t\"'=:".contains(b)).count();
    if !rest.get(..skip)?.iter().any(|b| b"=:".contains(b)) {
        return None;
    }
    let body = rest.get(skip..)?;
    let body =
        body.get(..body.iter().take_while(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)).count())?;
    (body.len() == 40 && !placeholder(body)).then(|| token("a secret access key of AWS"))
}

/// 64 bytes in base64.
fn azure(window: &[u8], _: usize, end: usize) -> Option<(Subject, String)> {
    let rest = window.get(end..end + 88)?;
    let (body, padding) = rest.split_at(86);
    let base64 = body.iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b));
    (padding == b"==" && base64 && !placeholder(body)).then(|| token("an account key of Azure storage"))
}

/// Whether the last 6 of 36 characters are the CRC-32 of the others in base 62, as GitHub and npm make them.
fn checksum(body: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    if body.len() != 36 {
        return false;
    }
    let (random, sum) = body.split_at(30);
    let value = sum
        .iter()
        .try_fold(0u64, |value, b| Some(value * 62 + DIGITS.iter().position(|digit| digit == b)? as u64));
    value == Some(u64::from(crc32fast::hash(random)))
}

fn github(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    checksum(run(window, start, end, word)?).then(|| token("a token of GitHub"))
}

/// 22 characters, `_`, 59 characters.
fn github_fine(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, word)?;
    (body.len() == 82 && body.get(22) == Some(&b'_') && !placeholder(body))
        .then(|| token("a fine-grained token of GitHub"))
}

fn npm(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    checksum(run(window, start, end, word)?).then(|| token("a token of npm"))
}

/// 20 characters; routable tokens have more, in parts with dots between.
fn gitlab(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, |b| url_safe(b) || b == b'.')?;
    ((20..=300).contains(&body.len()) && !placeholder(body)).then(|| token("a token of GitLab"))
}

/// Numbers of team and user, then the secret.
fn slack(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, |b| b.is_ascii_alphanumeric() || b == b'-')?;
    let parts: Vec<&[u8]> = body.split(|&b| b == b'-').collect();
    let number = parts.first().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    (number && parts.len() >= 2 && body.len() >= 30 && !placeholder(body)).then(|| token("a token of Slack"))
}

/// 35 characters.
fn google(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, url_safe)?;
    (body.len() == 35 && !placeholder(body)).then(|| token("an API key of Google"))
}

fn pypi(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, url_safe)?;
    (body.len() >= 50 && !placeholder(body)).then(|| token("a token of PyPI"))
}

fn docker(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, url_safe)?;
    ((27..=56).contains(&body.len()) && !placeholder(body)).then(|| token("a token of Docker Hub"))
}

fn stripe(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, |b| b.is_ascii_alphanumeric())?;
    (body.len() >= 24 && !placeholder(body)).then(|| token("a live key of Stripe"))
}

fn vault(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    let body = run(window, start, end, url_safe)?;
    (body.len() >= 24 && !placeholder(body)).then(|| token("a token of Vault"))
}

/// A JSON web token (RFC 7519): the header is JSON that names an algorithm, and a claims object follows.
fn jwt(window: &[u8], start: usize, _: usize) -> Option<(Subject, String)> {
    let header = run(window, start, start, url_safe)?;
    let rest = window.get(start + header.len()..)?.strip_prefix(b".")?;
    let claims = rest.get(..rest.iter().take_while(|b| url_safe(**b)).count())?;
    let signature = rest.get(claims.len()..)?;
    // Long claims end behind what may be looked at.
    let signed = claims.len() > 1024
        || signature
            .strip_prefix(b".")
            .is_some_and(|s| s.iter().take(20).filter(|b| url_safe(**b)).count() == 20);
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).ok()?;
    (signed && claims.starts_with(b"ey") && memchr::memmem::find(&decoded, b"\"alg\"").is_some())
        .then(|| (Subject::Token(Warning), "a JSON web token".into()))
}

#[cfg(test)]
pub(super) mod tests {
    use crate::scan_bytes;

    /// Tokens are put together here, so that no scanner of secrets stumbles over this file.
    fn with_checksum(prefix: &str, random: &str) -> String {
        let mut sum = crc32fast::hash(random.as_bytes());
        let mut digits = Vec::new();
        for _ in 0..6 {
            digits
                .push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(sum % 62) as usize]);
            sum /= 62;
        }
        digits.reverse();
        format!("{prefix}{random}{}", String::from_utf8(digits).unwrap())
    }

    /// The first characters of an alphabet in another order, so that nothing is a placeholder.
    fn body(len: usize) -> String {
        "q7Zr2Xv9Lk4Tn8Wb3Hm6Ps1Dy5Fg".chars().cycle().take(len).collect()
    }

    fn jwt() -> String {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{}",
            encode("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"),
            encode("{\"sub\":\"x\"}"),
            body(43)
        )
    }

    pub fn samples() -> Vec<String> {
        let all = [
            ("AKIA".to_owned() + "Q7ZR2XV6LK4TN5WB"),
            (format!("aws_secret_access_key = {}", body(40))),
            (format!("AccountKey={}==", body(86))),
            (with_checksum("ghp_", &body(30))),
            (with_checksum("npm_", &body(30))),
            (format!("github_pat_{}_{}", body(22), body(59))),
            (format!("glpat-{}", body(20))),
            (format!("glpat-{}.01.{}", body(40), body(9))),
            (format!("xoxb-{}-{}-{}", "123456789012", "1234567890123", body(24))),
            (format!("AIza{}", body(35))),
            (format!("pypi-AgE{}", body(60))),
            (format!("dckr_pat_{}", body(27))),
            (format!("sk_live_{}", body(24))),
            (format!("hvs.{}", body(90))),
            jwt(),
        ];
        all.into_iter().map(|token| format!("x = \"{token}\"\n")).collect()
    }

    #[test]
    fn each_token_is_found_once() {
        let names = [
            "an access key id of AWS",
            "a secret access key of AWS",
            "an account key of Azure storage",
            "a token of GitHub",
            "a token of npm",
            "a fine-grained token of GitHub",
            "a token of GitLab",
            "a token of GitLab",
            "a token of Slack",
            "an API key of Google",
            "a token of PyPI",
            "a token of Docker Hub",
            "a live key of Stripe",
            "a token of Vault",
            "a JSON web token",
        ];
        for (sample, name) in samples().iter().zip(names) {
            assert_eq!(scan_bytes(sample.as_bytes()), [name], "{sample}");
            // Inside of a longer word, such as other base64, it is nothing (settings have names and no such rule).
            let inside = sample.replace("= \"", "\"abc");
            if !name.contains("secret access") && !name.contains("Azure") {
                assert!(scan_bytes(inside.as_bytes()).is_empty(), "{inside}");
            }
        }
    }

    /// The checksum of a token that was made public (and revoked) to explain the format, as an outside witness.
    #[test]
    fn the_checksum_is_githubs() {
        let known = ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat();
        assert_eq!(scan_bytes(known.as_bytes()), ["a token of GitHub"]);
        assert!(scan_bytes(known.replace('7', "8").as_bytes()).is_empty());
    }

    #[test]
    fn near_misses() {
        for text in [
            "AKIA".to_owned() + "IOSFODNN7EXAMPLE",
            "AKIA".to_owned() + "Q7ZR2XV9LK4TN8WB", // 8 and 9 are not in base32
            "AKIA".to_owned() + "Q7ZR2XV6LK4TN5WBA",
            format!("ghp_{}", body(36)),
            format!("npm_{}", "config_registry_is_what_this_variable_is"),
            format!("glpat-{}", "x".repeat(20)),
            format!("glpat-{}", body(19)),
            "glpat-your-access-token-goes-here".into(),
            format!("xoxb-{}", "not-a-token-but-a-very-long-name-with-dashes"),
            format!("AIza{}", body(34)),
            format!("aws_secret_access_key = {}", "<your secret access key, forty characters>"),
            format!("aws_secret_access_key_{}", body(40)),
            "eyJhbGciOiJub25lIn0".into(),
            "hvs.exampleexampleexampleexample".into(),
            format!("sk_test_{}", body(24)),
        ] {
            assert!(scan_bytes(text.as_bytes()).is_empty(), "{text}");
        }
    }
}
