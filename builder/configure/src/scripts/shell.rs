//! Cutting a shell script into simple commands (POSIX.1-2024, "Shell Command Language", 2.3 and 2.10).
//!
//! Nothing is expanded. A word that holds an expansion or a pattern is marked as not literal, and callers
//! leave such commands alone. Two things are known of the surroundings of a command: whether it stands where
//! only an upgrade or another call than the installation's comes by, and which debhelper tool wrote it.

/// Longest script that is looked at, in bytes. Those of Debian have a few hundred kilobytes at most.
const SCRIPT_MAX: usize = 1 << 20;
/// Longest line that a report shows, in characters.
const SHOWN_MAX: usize = 160;

/// A word of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// Its text without quotes; expansions stand as they are written.
    pub text: String,
    /// Whether it holds no expansion and no pattern.
    pub literal: bool,
}

/// When a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At the first installation, as far as can be told.
    Installation,
    /// On upgrades only.
    Upgrade,
    /// When the script is called for something else (`triggered`, `abort-…`).
    OtherCall,
}

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Line of its first word, counted from 1.
    pub line: usize,
    /// Its words, redirections left out.
    pub words: Vec<Word>,
    /// When it runs.
    pub when: When,
    /// The debhelper tool that wrote it (`dh_installsystemd`).
    pub generated_by: Option<String>,
}

impl Command {
    /// The command's name without its folder; empty if it is not literal.
    pub fn name(&self) -> &str {
        match self.words.first() {
            Some(Word { text, literal: true }) => text.rsplit('/').next().unwrap_or(text),
            _ => "",
        }
    }

    /// The arguments, if all of them are literal.
    pub fn arguments(&self) -> Option<Vec<&str>> {
        self.words.iter().skip(1).map(|word| word.literal.then_some(word.text.as_str())).collect()
    }

    /// The command as one line of bounded length.
    pub fn shown(&self) -> String {
        let text = self.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let mut line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
        if text.chars().count() > SHOWN_MAX {
            line.push('…');
        }
        line
    }
}

#[derive(Debug, PartialEq)]
enum Token {
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
                (Some(_), _) => {}
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

/// The script as tokens with their lines.
fn tokens(text: &str) -> Vec<(usize, Token)> {
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

/// What encloses a command.
#[derive(Debug)]
enum Block {
    If { condition: bool, upgrade: bool, calls: Vec<String>, when: When },
    Case { on_call: bool, pattern: bool, when: When },
}

/// The script's commands in their order. A script longer than 1 MiB gives none: no maintainer script is so
/// long. Never panics, and takes time in proportion to the text.
pub fn commands(text: &str) -> Vec<Command> {
    if text.len() > SCRIPT_MAX {
        return Vec::new();
    }
    let mut parser = Parser { blocks: Vec::new(), words: Vec::new(), line: 0, tool: None, found: Vec::new() };
    let mut case_words: Option<Vec<Word>> = None;
    let mut labels: Vec<String> = Vec::new();
    for (line, token) in tokens(text) {
        if let Some(words) = &mut case_words {
            match token {
                Token::Word(word, false) if word.text == "in" && !words.is_empty() => {
                    let on_call = words[0].text == "$1" || words[0].text == "${1}";
                    parser.blocks.push(Block::Case { on_call, pattern: true, when: When::Installation });
                    case_words = None;
                }
                Token::Word(word, _) => words.push(word),
                _ => {}
            }
            continue;
        }
        if let Some(Block::Case { on_call, pattern: pattern @ true, when }) = parser.blocks.last_mut() {
            match token {
                Token::Word(word, false) if word.text == "esac" && labels.is_empty() => {
                    parser.blocks.pop();
                }
                Token::Word(word, _) => labels.push(word.text),
                Token::Operator(")") => {
                    let here =
                        labels.iter().any(|label| matches!(label.as_str(), "configure" | "install" | "*"));
                    *when = if *on_call && !here { When::OtherCall } else { When::Installation };
                    *pattern = false;
                    labels.clear();
                }
                _ => {}
            }
            continue;
        }
        match token {
            Token::Generated(tool) => parser.tool = tool,
            Token::Newline | Token::Operator(";" | "|") => parser.finish(),
            Token::Operator(";;") => {
                parser.finish();
                if let Some(Block::Case { pattern, .. }) = parser.blocks.last_mut() {
                    *pattern = true;
                }
            }
            // `name ()` begins a function.
            Token::Operator("(") => parser.words.clear(),
            Token::Operator(_) => parser.finish(),
            Token::Word(word, quoted) => {
                if parser.words.is_empty() {
                    parser.line = line;
                    if !quoted && parser.reserved(&word.text, &mut case_words) {
                        continue;
                    }
                }
                parser.words.push(word);
            }
        }
    }
    parser.finish();
    parser.found
}

struct Parser {
    blocks: Vec<Block>,
    words: Vec<Word>,
    line: usize,
    tool: Option<String>,
    found: Vec<Command>,
}

impl Parser {
    /// Deals with a reserved word where a command may begin.
    fn reserved(&mut self, word: &str, case_words: &mut Option<Vec<Word>>) -> bool {
        match word {
            "if" => self.blocks.push(Block::If {
                condition: true,
                upgrade: false,
                calls: Vec::new(),
                when: When::Installation,
            }),
            "elif" => self.last_if(|block| {
                if let Block::If { condition, upgrade, calls, when } = block {
                    (*condition, *upgrade, *when) = (true, false, When::Installation);
                    calls.clear();
                }
            }),
            "then" => self.last_if(|block| {
                if let Block::If { condition, upgrade, calls, when } = block {
                    *condition = false;
                    let here =
                        calls.is_empty() || calls.iter().any(|call| call == "configure" || call == "install");
                    *when = match (here, *upgrade) {
                        (false, _) => When::OtherCall,
                        (true, true) => When::Upgrade,
                        (true, false) => When::Installation,
                    };
                }
            }),
            "else" => self.last_if(|block| {
                if let Block::If { when, .. } = block {
                    *when = When::Installation;
                }
            }),
            "fi" => {
                if let Some(at) = self.blocks.iter().rposition(|block| matches!(block, Block::If { .. })) {
                    self.blocks.truncate(at);
                }
            }
            "case" => *case_words = Some(Vec::new()),
            "esac" => {
                if let Some(at) = self.blocks.iter().rposition(|block| matches!(block, Block::Case { .. })) {
                    self.blocks.truncate(at);
                }
            }
            "while" | "until" | "do" | "done" | "{" | "}" | "!" => {}
            _ => return false,
        }
        true
    }

    fn last_if(&mut self, change: impl FnOnce(&mut Block)) {
        if let Some(block) = self.blocks.iter_mut().rev().find(|block| matches!(block, Block::If { .. })) {
            change(block);
        }
    }

    /// Ends the command that was being read.
    fn finish(&mut self) {
        let words = std::mem::take(&mut self.words);
        if words.is_empty() {
            return;
        }
        if let Some(Block::If { condition: true, upgrade, calls, .. }) = self.blocks.last_mut() {
            let text: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            match text.as_slice() {
                ["[" | "test", "-n", "$2" | "${2}" | "${2:-}", ..] => *upgrade = true,
                [
                    "dpkg",
                    "--compare-versions",
                    "$2",
                    "lt-nl" | "le-nl" | "gt" | "ge" | "eq" | "gt-nl" | "ge-nl",
                    ..,
                ] => {
                    *upgrade = true;
                }
                ["[" | "test", "$1" | "${1}", "=" | "==", call, ..] => calls.push((*call).to_owned()),
                _ => {}
            }
        }
        let when = self
            .blocks
            .iter()
            .map(|block| match block {
                Block::If { when, .. } | Block::Case { when, .. } => *when,
            })
            .find(|when| *when != When::Installation)
            .unwrap_or(When::Installation);
        self.found.push(Command { line: self.line, words, when, generated_by: self.tool.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, When)> {
        commands(text).iter().map(|command| (command.shown(), command.when)).collect()
    }

    #[test]
    fn commands_quotes_and_continuations() {
        let script = "set -e\nupdate-alternatives --quiet \\\n  --install /usr/bin/a 'a b' \"/usr/bin/c\" 10 >/dev/null 2>&1 || true\n";
        let found = commands(script);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].line, 2);
        let words = ["--quiet", "--install", "/usr/bin/a", "a b", "/usr/bin/c", "10"];
        assert_eq!(found[1].arguments().unwrap(), words);
    }

    #[test]
    fn expansions_are_not_literal_but_dpkg_root_is_empty() {
        let found = commands(
            "adduser --home \"$DPKG_ROOT/var/x\" \"$USER\"\nsystemd-sysusers ${DPKG_ROOT:+--root=\"$DPKG_ROOT\"} a.conf\nrm $(ls \"a b\")x `id` *.c",
        );
        assert_eq!(found[0].words[2].text, "/var/x");
        assert!(found[0].words[2].literal && found[0].arguments().is_none());
        assert_eq!(found[1].arguments().unwrap(), ["", "a.conf"]);
        assert_eq!(found[2].words.iter().filter(|word| word.literal).count(), 1);
    }

    #[test]
    fn here_documents_and_comments_hold_no_commands() {
        let script = "cat > f <<-EOF # why\n\tadduser x\n\tEOF\n# adduser y\necho done";
        assert_eq!(
            shown(script),
            [("cat".into(), When::Installation), ("echo done".into(), When::Installation)]
        );
    }

    #[test]
    fn upgrades_and_other_calls_are_told_apart() {
        let script = r#"case "$1" in
            configure|reconfigure) a; if dpkg --compare-versions "$2" lt-nl 3; then b; else c; fi ;;
            abort-upgrade) d ;;
            *) e;; esac
            if [ "$1" = triggered ]; then f; fi
            if [ "$1" = configure ] || [ "$1" = abort-upgrade ]; then g; fi; h"#;
        let by = |when: When| {
            commands(script)
                .into_iter()
                .filter(|c| c.when == when && c.shown().len() == 1)
                .map(|c| c.shown())
                .collect::<String>()
        };
        assert_eq!(by(When::Installation), "acegh");
        assert_eq!(by(When::Upgrade), "b");
        assert_eq!(by(When::OtherCall), "df");
    }

    #[test]
    fn generated_sections_are_known() {
        let script = "# Automatically added by dh_installinit/13.1\nx\n# End automatically added section\ny";
        let tools: Vec<_> = commands(script).into_iter().map(|c| c.generated_by).collect();
        assert_eq!(tools, [Some("dh_installinit".into()), None]);
    }

    #[test]
    fn broken_scripts_end() {
        for text in [
            "\"",
            "'",
            "`",
            "$(",
            "${",
            "<<",
            "case",
            "case x in",
            "if",
            "fi",
            "esac",
            ";;",
            "a <<E",
            "\\",
            "$",
        ] {
            commands(text);
        }
    }
}
