//! The package file: an `ar` archive with a control and a data archive (deb(5), format 2.0).

use ashlar_tar::{EntryKind, read_entries};
use std::collections::BTreeMap;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom, Take};

/// Largest control archive, unpacked, in bytes.
pub const MAX_CONTROL: u64 = 64 << 20;
/// Largest file of a control archive, in bytes. `md5sums` of the largest packages have some megabytes.
const MAX_CONTROL_FILE: u64 = 16 << 20;
/// Most files of a control archive; dpkg knows about twenty names.
const MAX_CONTROL_FILES: usize = 1024;
/// Most members that are looked at before the data archive.
const MAX_MEMBERS: usize = 16;
/// Memory that unpacking one xz stream may take: dpkg's highest level needs 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;
/// Start of every `ar` archive.
const MAGIC: &[u8; 8] = b"!<arch>\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// Where an archive lies in the package file.
#[derive(Debug, Clone, Copy)]
struct Member {
    offset: u64,
    size: u64,
    packing: Packing,
}

/// The files of a control archive by name (`control`, `postinst`, `conffiles`). A file that is not UTF-8, a maintainer
/// script that is a program for instance, is named without its content.
pub type ControlFiles = BTreeMap<String, Option<String>>;

/// A package file whose members were found.
#[derive(Debug, Clone, Copy)]
pub struct Deb {
    control: Member,
    data: Member,
}

impl Deb {
    /// Finds the members of a package file.
    ///
    /// # Errors
    /// Says what does not fit the format.
    pub fn read(file: &mut (impl Read + Seek)) -> Result<Self, String> {
        let length = file.seek(SeekFrom::End(0)).map_err(text)?;
        file.seek(SeekFrom::Start(0)).map_err(text)?;
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(|_| "it is no `ar` archive")?;
        if magic != *MAGIC {
            return Err("it is no `ar` archive".into());
        }
        let mut offset = MAGIC.len() as u64;
        let mut control = None;
        for number in 0..MAX_MEMBERS {
            let (name, size) = header(file, offset)?;
            offset += 60;
            if length.checked_sub(offset).is_none_or(|left| left < size) {
                return Err(format!("member `{name}` is cut off"));
            }
            if number == 0 {
                check_format(file, &name, size)?;
            } else if let Some(ending) = name.strip_prefix("control.tar") {
                control = Some(Member { offset, size, packing: packing(&name, ending)? });
            } else if let Some(ending) = name.strip_prefix("data.tar") {
                let control = control.ok_or("its data archive comes before the control archive")?;
                return Ok(Self { control, data: Member { offset, size, packing: packing(&name, ending)? } });
            } else if !name.starts_with('_') {
                // deb(5): only these may be passed over.
                return Err(format!("it has an unknown member `{name}`"));
            }
            offset += size + size % 2;
            file.seek(SeekFrom::Start(offset)).map_err(text)?;
        }
        Err("it has no data archive".into())
    }

    /// The control file (deb-control(5)).
    ///
    /// # Errors
    /// Says what does not fit the format.
    pub fn control(&self, file: &mut (impl Read + Seek)) -> Result<String, String> {
        match self.control_files(file)?.remove("control") {
            Some(Some(control)) => Ok(control),
            Some(None) => Err("its control file is not UTF-8".into()),
            None => Err("it has no control file".into()),
        }
    }

    /// All files of the control archive: control file, maintainer scripts, triggers and so on.
    ///
    /// # Errors
    /// Says what does not fit the format.
    pub fn control_files(&self, file: &mut (impl Read + Seek)) -> Result<ControlFiles, String> {
        let mut tar = Vec::new();
        open(self.control, file)?
            .take(MAX_CONTROL + 1)
            .read_to_end(&mut tar)
            .map_err(|error| format!("its control archive cannot be unpacked: {error}"))?;
        if tar.len() as u64 > MAX_CONTROL {
            return Err(format!("its control archive has more than {MAX_CONTROL} bytes"));
        }
        let mut files = ControlFiles::new();
        for entry in read_entries(&mut Cursor::new(&tar))? {
            let EntryKind::File { offset, len } = entry.kind else { continue };
            // dpkg has no folders there; a name is a line of the kept file.
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            if !is_control_name(&name) {
                return Err(format!("its control archive has a file `{}`", name.escape_debug()));
            }
            if len > MAX_CONTROL_FILE {
                return Err(format!("its control file `{name}` has more than {MAX_CONTROL_FILE} bytes"));
            }
            let start = usize::try_from(offset).map_err(text)?;
            let end = start.checked_add(usize::try_from(len).map_err(text)?);
            let bytes = end.and_then(|end| tar.get(start..end)).ok_or("its control archive is cut off")?;
            files.insert(name, std::str::from_utf8(bytes).ok().map(str::to_owned));
            if files.len() > MAX_CONTROL_FILES {
                return Err(format!("its control archive has more than {MAX_CONTROL_FILES} files"));
            }
        }
        Ok(files)
    }

    /// The data archive, unpacked as it is read.
    ///
    /// # Errors
    /// Fails when the file cannot be read; a packed stream that is damaged fails while it is read.
    pub fn data<'a>(&self, file: &'a mut (impl Read + Seek)) -> Result<Box<dyn Read + 'a>, String> {
        open(self.data, file)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Whether a file of the control archive can have this name.
pub(crate) fn is_control_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-._".contains(&c))
}

/// Name and size of the member whose header is at `offset`.
fn header(file: &mut impl Read, offset: u64) -> Result<(String, u64), String> {
    let mut header = [0; 60];
    file.read_exact(&mut header).map_err(|_| format!("it ends at byte {offset}, before the data archive"))?;
    let bad = || format!("the member header at byte {offset} is damaged");
    let header = std::str::from_utf8(&header).map_err(|_| bad())?;
    let (name, size, end) = (header.get(..16), header.get(48..58), header.get(58..));
    let (Some(name), Some(size), Some("`\n")) = (name, size, end) else { return Err(bad()) };
    let size = size.trim_end().parse().map_err(|_| bad())?;
    // Some writers end names with a slash.
    let name = name.trim_end();
    Ok((name.strip_suffix('/').unwrap_or(name).to_owned(), size))
}

fn check_format(file: &mut impl Read, name: &str, size: u64) -> Result<(), String> {
    if name != "debian-binary" || size > 64 {
        return Err("its first member is not `debian-binary`".into());
    }
    let mut format = String::new();
    file.take(size).read_to_string(&mut format).map_err(text)?;
    let line = format.lines().next().unwrap_or("");
    if line.split_once('.').is_some_and(|(major, _)| major == "2") {
        Ok(())
    } else {
        Err(format!("it has format {line}, and only 2.0 is known"))
    }
}

fn packing(name: &str, ending: &str) -> Result<Packing, String> {
    match ending {
        "" => Ok(Packing::None),
        ".gz" => Ok(Packing::Gzip),
        ".bz2" => Ok(Packing::Bzip2),
        ".xz" => Ok(Packing::Xz),
        ".zst" => Ok(Packing::Zstd),
        _ => Err(format!("its member `{name}` is packed in a way that is not known")),
    }
}

fn open<R: Read + Seek>(member: Member, file: &mut R) -> Result<Box<dyn Read + '_>, String> {
    file.seek(SeekFrom::Start(member.offset)).map_err(text)?;
    let packed: BufReader<Take<&mut R>> = BufReader::with_capacity(128 << 10, file.take(member.size));
    Ok(match member.packing {
        Packing::None => Box::new(packed),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Packing::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(text)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed).map_err(text)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
        let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len());
        let padding: &[u8] = if bytes.len() % 2 == 1 { b"\n" } else { b"" };
        [header.as_bytes(), bytes, padding].concat()
    }

    fn tar(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, name, bytes).unwrap();
        builder.into_inner().unwrap()
    }

    fn deb(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (name, bytes) in members {
            out.extend(member(name, bytes));
        }
        out
    }

    fn usual() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", tar("./control", b"Package: a\n")),
            ("data.tar.zst/", zstd::encode_all(&tar("./usr/x", b"x")[..], 1).unwrap()),
        ]
    }

    fn read(bytes: &[u8]) -> Result<(String, Vec<u8>), String> {
        let mut file = Cursor::new(bytes);
        let deb = Deb::read(&mut file)?;
        let control = deb.control(&mut file)?;
        let mut data = Vec::new();
        deb.data(&mut file)?.read_to_end(&mut data).map_err(text)?;
        Ok((control, data))
    }

    #[test]
    fn members() {
        let (control, data) = read(&deb(&usual())).unwrap();
        assert_eq!(control, "Package: a\n");
        assert_eq!(data, tar("./usr/x", b"x"));
        let mut with_more = usual();
        with_more.insert(1, ("_gpgorigin", b"odd".to_vec()));
        assert!(read(&deb(&with_more)).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let with = |at: usize, name: &'static str, bytes: &[u8]| {
            let mut members = usual();
            members[at] = (name, bytes.to_vec());
            read(&deb(&members)).unwrap_err()
        };
        assert!(with(0, "debian-binary", b"3.0\n").contains("format 3.0"));
        assert!(with(0, "x", b"2.0\n").contains("first member"));
        assert!(with(1, "x", b"").contains("unknown member `x`"));
        assert!(with(1, "control.tar.lz", b"").contains("packed in a way"));
        assert!(with(1, "control.tar", &tar("./md5sums", b"")).contains("no control file"));
        assert_ne!(with(2, "data.tar.xz", b"nonsense"), "");
        assert!(read(b"!<arch>\n").unwrap_err().contains("ends at byte 8"));
    }

    #[test]
    fn damage_never_panics() {
        let good = deb(&usual());
        for end in 0..good.len() {
            let _ = read(&good[..end]);
        }
        for at in 0..good.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let _ = read(&bad);
            }
        }
    }
}
