//! Kernel modules. The builder puts them in order; init loads them one after the other.

use crate::console;
use crate::error::Error;
use ashlar_image::manifest::{MODULE_LIST, MODULES_DIR};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// The file names in a module list. A line that is no plain file name of a module is an error.
pub fn parse_order(text: &str) -> Result<Vec<&str>, Error> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let stem = line.strip_suffix(".ko");
            let plain = stem.is_some() && line.len() <= 255 && !line.contains('/');
            if plain { Ok(line) } else { Err(Error::ModuleName(line.chars().take(80).collect())) }
        })
        .collect()
}

/// Loads the modules of [`MODULES_DIR`]. A module that is there already is fine, and so is one whose hardware is
/// not there; everything else stops the boot.
pub fn load_all() -> Result<(), Error> {
    let folder = Path::new(MODULES_DIR);
    let list = folder.join(MODULE_LIST);
    let text = std::fs::read_to_string(&list).map_err(Error::io("read", &list))?;
    let names = parse_order(&text)?;
    for name in &names {
        let path = folder.join(name);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        match rustix::system::finit_module(file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NODEV) => console::info(format_args!("module {name}: no hardware for it")),
            Err(error) => return Err(Error::Module { name: (*name).to_owned(), source: error.into() }),
        }
    }
    console::info(format_args!("{} kernel modules loaded", names.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_file_names() {
        assert_eq!(parse_order("dm-mod.ko\n\nerofs.ko\n").unwrap(), ["dm-mod.ko", "erofs.ko"]);
        assert_eq!(parse_order("").unwrap(), Vec::<&str>::new());
        for bad in ["../x.ko", "/lib/x.ko", "x.ko.xz", "x"] {
            assert!(matches!(parse_order(bad), Err(Error::ModuleName(_))), "{bad}");
        }
    }
}
