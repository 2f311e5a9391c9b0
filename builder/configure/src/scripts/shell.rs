//! Cutting a shell script into simple commands (POSIX.1-2024, "Shell Command Language", 2.3 and 2.10).
//!
//! Nothing is expanded. A word that holds an expansion or a pattern is marked as not literal, and callers
//! leave such commands alone. Two things are known of the surroundings of a command: whether it stands where
//! only an upgrade or another call than the installation's comes by, and which debhelper tool wrote it.

use super::tokens::{Token, Word, tokens};
use std::collections::{BTreeMap, BTreeSet};

/// Longest script that is looked at, in bytes. Those of Debian have a few hundred kilobytes at most.
const SCRIPT_MAX: usize = 1 << 20;
/// Longest line that a report shows, in characters.
const SHOWN_MAX: usize = 160;

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
    /// The function of the script that it is in.
    pub function: Option<String>,
    /// Whether it calls a function of the script without arguments: then the function's own commands say all.
    pub calls_function: bool,
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

/// What encloses a command.
#[derive(Debug)]
enum Block {
    If { condition: bool, upgrade: bool, calls: Vec<String>, when: When },
    Case { on_call: bool, pattern: bool, when: When },
    Braces { function: Option<String> },
}

/// The script's commands in their order. A script longer than 1 MiB gives none: no maintainer script is so
/// long. Never panics, and takes time in proportion to the text.
pub fn commands(text: &str) -> Vec<Command> {
    if text.len() > SCRIPT_MAX {
        return Vec::new();
    }
    let mut parser = Parser {
        blocks: Vec::new(),
        words: Vec::new(),
        line: 0,
        tool: None,
        found: Vec::new(),
        function: None,
        functions: BTreeSet::new(),
    };
    let mut case_words: Option<Vec<Word>> = None;
    let mut labels: Vec<String> = Vec::new();
    for (line, token) in tokens(text) {
        if let Some(words) = &mut case_words {
            match token {
                Token::Word(word, false) if word.text == "in" && !words.is_empty() => {
                    let in_function =
                        parser.blocks.iter().any(|b| matches!(b, Block::Braces { function: Some(_) }));
                    let on_call = !in_function && matches!(words[0].text.as_str(), "$1" | "${1}");
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
            Token::Operator(";;") => {
                parser.finish();
                if let Some(Block::Case { pattern, .. }) = parser.blocks.last_mut() {
                    *pattern = true;
                }
            }
            // `name ()` begins a function.
            Token::Operator("(") => {
                if let [Word { text, .. }] = parser.words.as_slice() {
                    parser.function = Some(text.clone());
                    parser.functions.insert(text.clone());
                }
                parser.words.clear();
            }
            Token::Newline | Token::Operator(_) => parser.finish(),
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
    let Parser { mut found, functions, .. } = parser;
    settle_functions(&mut found, &functions);
    found
}

/// Commands of a function run when it is called: if that is on upgrades only, they do so too. Functions that call
/// functions take as many rounds as they are deep; a few are enough for all scripts there are.
fn settle_functions(found: &mut [Command], functions: &BTreeSet<String>) {
    for command in found.iter_mut() {
        command.calls_function = command.words.len() == 1 && functions.contains(command.name());
    }
    for _ in 0..4 {
        let mut calls: BTreeMap<String, When> = BTreeMap::new();
        for command in found.iter().filter(|command| functions.contains(command.name())) {
            let when = calls.entry(command.name().to_owned()).or_insert(command.when);
            if command.when == When::Installation {
                *when = When::Installation;
            }
        }
        for command in found.iter_mut().filter(|command| command.when == When::Installation) {
            if let Some(when) = command.function.as_ref().and_then(|name| calls.get(name)) {
                command.when = *when;
            }
        }
    }
}

struct Parser {
    blocks: Vec<Block>,
    words: Vec<Word>,
    line: usize,
    tool: Option<String>,
    found: Vec<Command>,
    /// The function whose body comes next.
    function: Option<String>,
    functions: BTreeSet<String>,
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
            "{" => self.blocks.push(Block::Braces { function: self.function.take() }),
            "}" => {
                if let Some(at) = self.blocks.iter().rposition(|block| matches!(block, Block::Braces { .. }))
                {
                    self.blocks.truncate(at);
                }
            }
            "while" | "until" | "do" | "done" | "!" => {}
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
        let mut words = std::mem::take(&mut self.words);
        // `NAME=value command` is the command; assignments alone have no effect outside of the script.
        let assignments = words.iter().take_while(|word| is_assignment(&word.text)).count();
        words.drain(..assignments);
        if words.is_empty() {
            return;
        }
        let function = self.blocks.iter().rev().find_map(|block| match block {
            Block::Braces { function } => function.clone(),
            _ => None,
        });
        // In a function `$1` is its own argument.
        if let (Some(Block::If { condition: true, upgrade, calls, .. }), None) =
            (self.blocks.last_mut(), &function)
        {
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
                Block::Braces { .. } => When::Installation,
            })
            .find(|when| *when != When::Installation)
            .unwrap_or(When::Installation);
        self.found.push(Command {
            line: self.line,
            words,
            when,
            generated_by: self.tool.clone(),
            function,
            calls_function: false,
        });
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
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
    fn functions_run_when_they_are_called() {
        let script = "f () {\n if [ \"$1\" = x ]; then a; fi; g; }\ng() { b; }\nh() { c; }\n\
            V=1 W=$(x y) h \"$Z\"\nX=$1\nif [ -n \"$2\" ]; then f now; fi";
        let found = commands(script);
        let when =
            |name: &str| found.iter().find(|command| command.shown() == name).map(|command| command.when);
        assert_eq!(when("a"), Some(When::Upgrade));
        assert_eq!(when("b"), Some(When::Upgrade));
        assert_eq!(when("c"), Some(When::Installation));
        let calls: Vec<_> = found.iter().filter(|c| c.calls_function).map(Command::shown).collect();
        assert_eq!(calls, ["g"]);
        assert_eq!(when("X=$1"), None);
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
