//! Cutting a shell script into words and operators (POSIX.1-2024, "Shell Command Language", 2.2 and 2.3).

/// A word of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// Its text without quotes; expansions stand as they are written.
    pub text: String,
    /// Whether it holds no expansion and no pattern.
    pub literal: bool,
}

/// A piece of a script.
#[derive(Debug, PartialEq)]
pub(super) enum Token {
    Word(Word, bool),
    Operator(&'static str),
    Newline,
    Generated(Option<String>),
}

/// Reads characters with their line.
struct Reader<'a> {
    rest: std::str::Chars<'a>,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }
    fn second(&self) -> Option<char> {
        self.rest.clone().nth(1)
    }
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.line += usize::from(c == Some('\n'));
        c
    }
    fn line_rest(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|&c| c != '\n') {
            text.push(c);
            self.next();
        }
        text
    }
    /// Takes what follows `open` up to its `close`, quotes inside kept together.
    fn balanced(&mut self, open: char, close: char, text: &mut String) {
        let mut depth = 1;
        let mut quote = None;
        while let Some(c) = self.next() {
            text.push(c);
            match (quote, c) {
                (_, '\\') if quote != Some('\'') => text.extend(self.next()),
                (Some(q), _) if q == c => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, _) if c == close => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                (None, _) if c == open => depth += 1,
                _ => {}
            }
        }
    }
    /// Reads an expansion after its `$`. One of `DPKG_ROOT` is empty when dpkg configures its own root, which
    /// the tree is, and vanishes.
    fn expansion(&mut self, word: &mut Word) {
        let mut text = String::from("$");
        match self.peek() {
            Some('(') => {
                text.extend(self.next());
                self.balanced('(', ')', &mut text);
            }
            Some('{') => {
                text.extend(self.next());
                self.balanced('{', '}', &mut text);
            }
            Some(c) if c.is_alphanumeric() || "_@*#?$!-".contains(c) => {
                text.extend(self.next());
                while c.is_alphabetic() || c == '_' {
                    match self.peek() {
                        Some(c) if c.is_alphanumeric() || c == '_' => text.extend(self.next()),
                        _ => break,
                    }
                }
            }
            _ => {
                word.text.push('$');
                return;
            }
        }
        let empty =
            matches!(text.as_str(), "$DPKG_ROOT" | "${DPKG_ROOT}" | "${DPKG_ROOT:-}" | "${DPKG_ROOT-}")
                || text.starts_with("${DPKG_ROOT:+");
        if !empty {
            word.text.push_str(&text);
            word.literal = false;
        }
    }
    /// Reads a word; the flag tells whether any of it was quoted.
    fn word(&mut self) -> (Word, bool) {
        let mut word = Word { text: String::new(), literal: true };
        let mut quoted = false;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                _ => {}
            }
            self.next();
            match c {
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c) => word.text.push(c),
                },
                '\'' => {
                    quoted = true;
                    while let Some(c) = self.next().filter(|&c| c != '\'') {
                        word.text.push(c);
                    }
                }
                '"' => {
                    quoted = true;
                    self.double_quoted(&mut word);
                }
                '$' => self.expansion(&mut word),
                '`' => self.backquoted(&mut word),
                '*' | '?' | '[' => {
                    // A lone `[` is a command.
                    word.literal &= c == '[' && word.text.is_empty() && self.peek().is_none_or(|c| c == ' ');
                    word.text.push(c);
                }
                _ => word.text.push(c),
            }
        }
        (word, quoted)
    }
    fn double_quoted(&mut self, word: &mut Word) {
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c) => {
                        if !matches!(c, '"' | '\\' | '$' | '`') {
                            word.text.push('\\');
                        }
                        word.text.push(c);
                    }
                },
                '$' => self.expansion(word),
                '`' => self.backquoted(word),
                _ => word.text.push(c),
            }
        }
    }
    fn backquoted(&mut self, word: &mut Word) {
        word.literal = false;
        word.text.push('`');
        while let Some(c) = self.next() {
            word.text.push(c);
            match c {
                '`' => return,
                '\\' => word.text.extend(self.next()),
                _ => {}
            }
        }
    }
}

/// The script as tokens with their lines. Takes time in proportion to the text, without recursion.
pub(super) fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut reader = Reader { rest: text.chars(), line: 1 };
    let mut tokens: Vec<(usize, Token)> = Vec::new();
    // Words that end a here-document, and whether tabs before them are dropped.
    let mut documents: Vec<(String, bool)> = Vec::new();
    while let Some(c) = reader.peek() {
        let line = reader.line;
        match c {
            ' ' | '\t' | '\r' => {
                reader.next();
            }
            '\\' if reader.second() == Some('\n') => {
                reader.next();
                reader.next();
            }
            '\n' => {
                reader.next();
                tokens.push((line, Token::Newline));
                for (end, tabs) in documents.drain(..) {
                    while reader.peek().is_some() {
                        let text = reader.line_rest();
                        reader.next();
                        if if tabs { text.trim_start_matches('\t') } else { &text } == end {
                            break;
                        }
                    }
                }
            }
            '#' => {
                let comment = reader.line_rest();
                let comment = comment.trim_start_matches('#').trim();
                if let Some(tool) = comment.strip_prefix("Automatically added by ") {
                    tokens.push((
                        line,
                        Token::Generated(Some(tool.split('/').next().unwrap_or(tool).to_owned())),
                    ));
                } else if comment.starts_with("End automatically added section") {
                    tokens.push((line, Token::Generated(None)));
                }
            }
            '<' | '>' => redirection(&mut reader, &mut tokens, &mut documents),
            ';' | '&' | '|' | '(' | ')' => {
                reader.next();
                let doubled = reader.peek() == Some(c) && matches!(c, ';' | '&' | '|');
                if doubled {
                    reader.next();
                }
                if c == '&' && !doubled && reader.peek() == Some('>') {
                    redirection(&mut reader, &mut tokens, &mut documents);
                    continue;
                }
                let operator = match (c, doubled) {
                    (';', true) => ";;",
                    ('(', _) => "(",
                    (')', _) => ")",
                    ('|', false) => "|",
                    _ => ";",
                };
                tokens.push((line, Token::Operator(operator)));
            }
            _ => {
                let (word, quoted) = reader.word();
                tokens.push((line, Token::Word(word, quoted)));
            }
        }
    }
    tokens
}

/// Takes a redirection away, with the number before it and the word behind it.
fn redirection(
    reader: &mut Reader<'_>,
    tokens: &mut Vec<(usize, Token)>,
    documents: &mut Vec<(String, bool)>,
) {
    if let Some((_, Token::Word(word, false))) = tokens.last() {
        // `2>` has no blank between; a number that is an argument is rare enough before a redirection.
        if word.literal && word.text.len() == 1 && word.text.bytes().all(|b| b.is_ascii_digit()) {
            tokens.pop();
        }
    }
    let first = reader.next();
    let mut document = false;
    match (first, reader.peek()) {
        (Some('<'), Some('<')) => {
            reader.next();
            document = true;
        }
        (_, Some('>' | '&' | '|')) => {
            reader.next();
        }
        _ => {}
    }
    let tabs = document && reader.peek() == Some('-');
    if tabs {
        reader.next();
    }
    while let Some(' ' | '\t') = reader.peek() {
        reader.next();
    }
    let (word, _) = reader.word();
    if document && !word.text.is_empty() {
        documents.push((word.text, tabs));
    }
}
