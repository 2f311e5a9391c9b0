//! `os-release`, which lies in the root and, as `.osrel`, in the UKI (os-release(5)).

use crate::recipe::Image;

/// The file's text. The image's id and version were checked to need no quoting.
pub fn text(image: &Image) -> String {
    let quoted = |text: &str| {
        let mut out = String::from("\"");
        for c in text.chars().filter(|c| !c.is_control()) {
            if matches!(c, '"' | '\\' | '$' | '`') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
        out
    };
    let default_name = format!("Ashlar {} {}", image.id, image.version);
    let name = image.name.as_deref().unwrap_or(&default_name);
    format!(
        "NAME=Ashlar\nID=ashlar\nID_LIKE=debian\nPRETTY_NAME={}\nVERSION_ID={v}\nIMAGE_ID={}\nIMAGE_VERSION={v}\n",
        quoted(name),
        image.id,
        v = image.version,
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let recipe = crate::recipe::Recipe::parse(
            "image.toml",
            "[image]\nid = \"a\"\nversion = \"1\"\nname = 'x\" $HOME'\n[kernel]\ninitramfs-modules = []\n",
        )
        .unwrap();
        let text = super::text(&recipe.image);
        assert!(text.contains("PRETTY_NAME=\"x\\\" \\$HOME\"\n"), "{text}");
        assert!(text.contains("IMAGE_ID=a\n") && text.contains("IMAGE_VERSION=1\n"), "{text}");
    }
}
