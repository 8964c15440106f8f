//! A small reader of Rust sources: which paths does a file name? Comments, texts and test code do not count.

/// One file of `src`.
pub(super) struct Source {
    /// Its path below `src`, such as `kinds/agent.rs`.
    pub(super) path: String,
    /// Its module, such as `["kinds", "agent"]`; empty for the crate's roots.
    module: Vec<String>,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    /// `::`
    Sep,
    Punct(char),
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(path, "lib.rs" | "main.rs") {
            module.clear();
        }
        Self { path: path.to_owned(), module, text: text.to_owned() }
    }

    /// The module of the crate's root that it belongs to.
    pub(super) fn top(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    /// True when the whole file is test code.
    pub(super) fn is_test(&self) -> bool {
        self.module.iter().any(|part| part == "tests")
    }

    pub(super) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Paths that the file names outside of its test code. Those into this crate start with `crate`.
    pub(super) fn paths(&self) -> Vec<Vec<String>> {
        if self.is_test() {
            return Vec::new();
        }
        let tokens = without_tests(&lex(&self.text));
        let mut reader = Reader { tokens: &tokens, module: self.module.clone(), found: Vec::new() };
        reader.read();
        reader.found
    }

    /// How often this is written in the file, wherever.
    pub(super) fn count(&self, text: &str) -> usize {
        self.text.matches(text).count()
    }

    /// Names inside the attributes of the file, tests included: `ignore` of `#[ignore]`.
    pub(super) fn attributes(&self) -> Vec<&str> {
        let tokens = lex(&self.text);
        let starts = tokens.windows(3).filter_map(|w| match w {
            [Token::Punct('#'), Token::Punct('['), Token::Word(name)] => Some(*name),
            _ => None,
        });
        starts.collect()
    }
}

fn lex(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => block_comment(rest),
            _ if rest.starts_with("::") => {
                tokens.push(Token::Sep);
                2
            }
            '"' => quoted(rest, '"'),
            '\'' => char_or_lifetime(rest),
            _ if c.is_alphanumeric() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                if let Some(text) = raw_text(&rest[..end], &rest[end..]) {
                    end + text
                } else {
                    tokens.push(Token::Word(&rest[..end]));
                    end
                }
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push(Token::Punct(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Bytes of a quoted text, both quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn char_or_lifetime(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    if first == Some('\\') || second == Some('\'') {
        return quoted(text, '\'');
    }
    1
}

/// Bytes after `prefix` that belong to a raw text such as `r#"…"#`; `None` when it is a word.
fn raw_text(prefix: &str, rest: &str) -> Option<usize> {
    if !matches!(prefix, "r" | "br" | "cr") {
        return None;
    }
    let hashes = rest.bytes().take_while(|b| *b == b'#').count();
    rest[hashes..].starts_with('"').then(|| {
        let close = format!("\"{}", "#".repeat(hashes));
        rest[hashes + 1..].find(&close).map_or(rest.len(), |end| hashes + 1 + end + close.len())
    })
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match attribute(&tokens[at..]) {
            Some(length) if is_test_attribute(&tokens[at..at + length]) => {
                at += length;
                while let Some(length) = attribute(&tokens[at..]) {
                    at += length;
                }
                at += item(&tokens[at..]);
            }
            _ => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

fn attribute(tokens: &[Token<'_>]) -> Option<usize> {
    let [Token::Punct('#'), Token::Punct('['), ..] = tokens else { return None };
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Punct('[') => depth += 1,
            Token::Punct(']') if depth == 1 => return Some(at + 1),
            Token::Punct(']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn is_test_attribute(attribute: &[Token<'_>]) -> bool {
    let has = |word| attribute.contains(&Token::Word(word));
    has("cfg") && has("test") && !has("not")
}

/// Tokens of an item: up to its `;`, or to the end of its block.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Punct('{' | '(' | '[') => depth += 1,
            Token::Punct('}') if depth == 1 => return at + 1,
            Token::Punct('}' | ')' | ']') => depth -= 1,
            Token::Punct(';') if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    /// The module of the file and the modules inside it that are open.
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Reader<'_> {
    fn read(&mut self) {
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            match self.tokens[at..] {
                [Token::Word("mod"), Token::Word(name), Token::Punct('{'), ..] => {
                    self.module.push(name.to_owned());
                    blocks.push(true);
                    at += 3;
                }
                [Token::Punct('{'), ..] => {
                    blocks.push(false);
                    at += 1;
                }
                [Token::Punct('}'), ..] => {
                    if blocks.pop() == Some(true) {
                        self.module.pop();
                    }
                    at += 1;
                }
                [Token::Word(_), Token::Sep, ..] => at = self.path(at, &[]),
                _ => at += 1,
            }
        }
    }

    /// Reads a path, with its groups, and returns where it ends.
    fn path(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        loop {
            match self.tokens[at..] {
                [Token::Word(word), Token::Sep, ..] => {
                    path.push(word.to_owned());
                    at += 2;
                }
                [Token::Word(word), ..] => {
                    path.push(word.to_owned());
                    at += 1;
                    break;
                }
                [Token::Punct('{'), ..] => return self.group(at + 1, &path),
                [Token::Punct('*'), ..] => {
                    at += 1;
                    break;
                }
                _ => break,
            }
        }
        self.found.push(self.absolute(&path));
        at
    }

    fn group(&mut self, mut at: usize, prefix: &[String]) -> usize {
        while at < self.tokens.len() {
            match self.tokens[at..] {
                [Token::Punct('}'), ..] => return at + 1,
                [Token::Word("as"), Token::Word(_), ..] => at += 2,
                [Token::Word(_) | Token::Punct('{'), ..] => at = self.path(at, prefix),
                _ => at += 1,
            }
        }
        at
    }

    fn absolute(&self, path: &[String]) -> Vec<String> {
        let mut module = self.module.clone();
        let supers = path.iter().take_while(|part| *part == "super").count();
        let rest = match path.first().map(String::as_str) {
            Some("super") => {
                module.truncate(module.len().saturating_sub(supers));
                &path[supers..]
            }
            Some("self") => &path[1..],
            _ => return path.to_vec(),
        };
        let root = std::iter::once("crate".to_owned());
        root.chain(module).chain(rest.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        Source::new(path, text).paths().into_iter().map(|p| p.join("::")).collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let found = paths("a.rs", "use std::{fs, io::{self, Read as R}, env::*};");
        assert_eq!(found, ["std::fs", "std::io::self", "std::io::Read", "std::env"]);
    }

    #[test]
    fn paths_in_expressions_and_types_count() {
        let found =
            paths("a.rs", "fn f(x: crate::git::Tree) -> u8 { jiff::Timestamp::now(); Vec::<u8>::new() }");
        assert_eq!(found, ["crate::git::Tree", "jiff::Timestamp::now", "Vec"]);
    }

    #[test]
    fn comments_texts_and_characters_do_not_count() {
        let text = "// std::fs\n/* std::fs /* std::fs */ std::fs */ \"std::fs \\\" std::fs\" r#\"std::fs \" std::fs\"# '\"' '\\'' ";
        assert!(paths("a.rs", text).is_empty());
        assert_eq!(paths("a.rs", "fn f<'a>(x: &'a std::env::Args) {}"), ["std::env::Args"]);
        assert_eq!(paths("a.rs", "let r = '\"'; std::fs::read(r)"), ["std::fs::read"]);
    }

    #[test]
    fn test_code_does_not_count_and_what_follows_does() {
        let text = "#[cfg(test)]\n#[allow(x)]\nmod tests { use std::fs; fn f() { { std::env::args() } } }\nuse std::io::Read;";
        assert_eq!(paths("a.rs", text), ["std::io::Read"]);
        assert_eq!(paths("a.rs", "#[cfg(test)] use std::fs; use std::env::args;"), ["std::env::args"]);
        assert_eq!(paths("a.rs", "#[cfg(not(test))] use std::fs::read;"), ["std::fs::read"]);
        assert!(paths("a/tests.rs", "use std::fs;").is_empty());
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        assert_eq!(paths("a/b.rs", "use super::super::git::x;"), ["crate::git::x"]);
        assert_eq!(paths("a/b.rs", "use super::c::x;"), ["crate::a::c::x"]);
        assert_eq!(
            paths("a.rs", "mod inner { use super::git::x; } use super::git::y;"),
            ["crate::a::git::x", "crate::git::y"]
        );
        assert_eq!(paths("a.rs", "use self::b::x;"), ["crate::a::b::x"]);
    }

    #[test]
    fn attributes_are_seen_in_tests_too() {
        let source =
            Source::new("a.rs", "#[cfg(test)] mod tests { #[test] #[ignore = \"later\"] fn f() {} }");
        assert_eq!(source.attributes(), ["cfg", "test", "ignore"]);
        assert!(!Source::new("a.rs", "// #[ignore]").attributes().contains(&"ignore"));
    }
}
