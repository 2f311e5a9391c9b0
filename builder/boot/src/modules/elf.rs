//! What a module says of itself: the strings in its section `.modinfo` (Linux, `include/linux/module.h`).

use object::read::elf::{ElfFile64, FileHeader};
use object::{LittleEndian, Object, ObjectSection};

/// What is needed of `.modinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Info {
    /// `name=`, the module's name.
    pub name: String,
    /// `depends=`, names of modules whose symbols it uses.
    pub depends: Vec<String>,
    /// `softdep=pre:`, names or aliases of modules that should be loaded before.
    pub before: Vec<String>,
    /// `alias=`, other names that it answers to.
    pub aliases: Vec<String>,
}

/// Reads an uncompressed module. The error says what is wrong with it.
pub fn info(bytes: &[u8]) -> Result<Info, &'static str> {
    let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(|_| "it is no 64-bit ELF file")?;
    if file.elf_header().e_machine(LittleEndian) != object::elf::EM_X86_64 {
        return Err("it is for another machine than x86-64");
    }
    let section = file.section_by_name(".modinfo").ok_or("it has no section `.modinfo`")?;
    let data = section.data().map_err(|_| "its section `.modinfo` is cut off")?;
    let mut info = Info::default();
    for string in data.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(string).ok().and_then(|text| text.split_once('='))
        else {
            continue;
        };
        match key {
            "name" => value.clone_into(&mut info.name),
            "depends" => {
                info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
            "softdep" => info.before.extend(before(value)),
            "alias" => info.aliases.push(value.to_owned()),
            _ => {}
        }
    }
    if info.name.is_empty() {
        return Err("its section `.modinfo` has no name");
    }
    Ok(info)
}

/// The words after `pre:` in `pre: a b post: c`.
fn before(softdep: &str) -> impl Iterator<Item = String> + '_ {
    let mut in_pre = false;
    softdep.split_ascii_whitespace().filter_map(move |word| match word {
        "pre:" | "post:" => {
            in_pre = word == "pre:";
            None
        }
        _ => in_pre.then(|| word.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_before_is_taken_of_a_soft_dependency() {
        let words = |text| before(text).collect::<Vec<_>>();
        assert_eq!(words("pre: a b post: c pre: d"), ["a", "b", "d"]);
        assert_eq!(words("a post: c"), Vec::<String>::new());
    }
}
