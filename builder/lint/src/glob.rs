//! Paths with wildcards, as the recipe writes them in `[[lint.allow]]`.

/// Whether `path` matches `pattern`: `*` stands for any characters but `/`, `**` for any characters, `?` for one
/// character but `/`. A pattern that ends in `/**` matches the directory too. Takes time in proportion to the
/// product of the lengths at most.
pub fn matches(pattern: &str, path: &str) -> bool {
    if pattern.strip_suffix("/**").is_some_and(|directory| !directory.is_empty() && matches(directory, path))
    {
        return true;
    }
    let pattern: Vec<Token> = tokens(pattern);
    // `reached[i]`: the first i tokens match what was read of the path.
    let mut reached = vec![false; pattern.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    skip_stars(&pattern, &mut reached);
    for c in path.chars() {
        let mut next = vec![false; pattern.len() + 1];
        for (i, token) in pattern.iter().enumerate() {
            if !reached[i] {
                continue;
            }
            match token {
                Token::Any => next[i] = true,
                Token::Star if c != '/' => next[i] = true,
                Token::One if c != '/' => next[i + 1] = true,
                Token::Char(wanted) if *wanted == c => next[i + 1] = true,
                _ => {}
            }
        }
        reached = next;
        skip_stars(&pattern, &mut reached);
    }
    reached.last().copied().unwrap_or(false)
}

enum Token {
    Char(char),
    One,
    Star,
    Any,
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '?' => Token::One,
            '*' => {
                if chars.next_if_eq(&'*').is_some() {
                    Token::Any
                } else {
                    Token::Star
                }
            }
            c => Token::Char(c),
        });
    }
    out
}

/// A star may stand for nothing.
fn skip_stars(pattern: &[Token], reached: &mut [bool]) {
    for (i, token) in pattern.iter().enumerate() {
        if reached[i] && matches!(token, Token::Star | Token::Any) {
            reached[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards() {
        for (pattern, path, expected) in [
            ("/usr/bin/sudo", "/usr/bin/sudo", true),
            ("/usr/bin/sudo", "/usr/bin/sudoedit", false),
            ("/usr/bin/*", "/usr/bin/sudo", true),
            ("/usr/*", "/usr/bin/sudo", false),
            ("/usr/**", "/usr/bin/sudo", true),
            ("/usr/**", "/usr", true),
            ("/usr/**", "/usrlocal", false),
            ("**/*.pyc", "/a/b/c.pyc", true),
            ("/a/?", "/a/b", true),
            ("/a/?", "/a//", false),
            ("/é*", "/épée", true),
            ("*", "/a", false),
            ("**", "/a", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&"*a".repeat(60), &"a".repeat(4000).replace("aaaa", "aab")));
    }
}
