//! `compare diff|same A B [--all|--json]`: the library from a shell.

use ashlar_compare::{ReleaseFolder, diff, same};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, a, b, options @ ..] = arguments.as_slice() else { return Err("compare diff|same A B".into()) };
    let (a, b) = (ReleaseFolder::open(Path::new(a))?, ReleaseFolder::open(Path::new(b))?);
    let (all, json) =
        (options.iter().any(|option| option == "--all"), options.iter().any(|option| option == "--json"));
    let text = match what.as_str() {
        "diff" if json => serde_json::to_string_pretty(&diff(&a, &b)?)?,
        "diff" => diff(&a, &b)?.text(all),
        _ if json => serde_json::to_string_pretty(&same(&a, &b)?)?,
        _ => same(&a, &b)?.text(all),
    };
    println!("{text}");
    Ok(())
}
