//! [`Image`]: what a container starts from. Made of the final stage of our Dockerfile and a binary, or of a folder that a real
//! builder filled.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// What a container starts from.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// A folder with all of its files, which every container gets a copy of.
    pub root: Option<PathBuf>,
    /// What is mounted into it, read-only: where it is on this machine, and where in the image.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// What is always run.
    pub entrypoint: Vec<String>,
    /// Arguments of it, if the Pod has none.
    pub command: Vec<String>,
    /// User and group, if the Pod has none.
    pub user: Option<(u32, u32)>,
    /// Where it starts.
    pub folder: Option<PathBuf>,
}

/// What a program that is not static needs of the machine that it was built on.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

impl Image {
    /// Follows the last stage of a Dockerfile, with `artifact` for the one file of an earlier stage that is built there. Other
    /// files of earlier stages are taken from this machine.
    pub fn from_dockerfile(dockerfile: &Path, built: &str, artifact: &Path) -> anyhow::Result<Image> {
        let text = std::fs::read_to_string(dockerfile).with_context(|| dockerfile.display().to_string())?;
        let mut image = Image::default();
        let last = text.rfind("\nFROM ").context("no FROM")?;
        for line in text[last..].lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').with_context(|| line.to_owned())?;
            let list = || serde_json::from_str::<Vec<String>>(rest).with_context(|| line.to_owned());
            match word {
                "FROM" => ensure!(rest == "scratch", "{line}: only an empty base is understood"),
                "COPY" => {
                    let words: Vec<&str> = rest.split_whitespace().filter(|w| !w.starts_with("--from=")).collect();
                    let [from, to] = words[..] else { bail!("{line}") };
                    let from = if from == built { artifact.to_owned() } else { PathBuf::from(from) };
                    image.files.push((from, to.into()));
                }
                "USER" => image.user = Some(user(rest)?),
                "EXPOSE" | "LABEL" => {}
                "WORKDIR" => image.folder = Some(rest.into()),
                "ENTRYPOINT" => image.entrypoint = list()?,
                "CMD" => image.command = list()?,
                _ => bail!("{line}: not understood"),
            }
        }
        if !is_static(artifact)? {
            image.files.extend(LIBRARIES.map(|path| (path.into(), path.into())));
        }
        Ok(image)
    }
}

impl Image {
    /// What a builder made: the files in a folder, and the `config` of the image's own JSON.
    pub fn from_built(root: &Path, config: &serde_json::Value) -> anyhow::Result<Image> {
        let list = |key: &str| {
            let words = config[key].as_array().into_iter().flatten();
            words.map(|w| w.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        Ok(Image {
            root: Some(root.to_owned()),
            entrypoint: list("Entrypoint"),
            command: list("Cmd"),
            user: config["User"].as_str().filter(|u| !u.is_empty()).map(user).transpose()?,
            folder: config["WorkingDir"].as_str().filter(|f| !f.is_empty()).map(PathBuf::from),
            ..Image::default()
        })
    }
}

fn user(text: &str) -> anyhow::Result<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Ok((user.parse().context("a user is a number")?, group.parse().context("a group is a number")?))
}

/// Whether a program needs no other file: it names no interpreter (ELF program header of type 3).
pub fn is_static(program: &Path) -> anyhow::Result<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(program).with_context(|| program.display().to_string())?.take(4096).read_to_end(&mut head)?;
    let number = |at: usize, bytes: usize| head.get(at..at + bytes).map(|b| b.iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b)));
    ensure!(head.starts_with(b"\x7fELF\x02\x01"), "{} is no 64-bit program of this machine", program.display());
    let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let (first, size, count) = (first.context("ELF")?, size.context("ELF")?, count.context("ELF")?);
    let kinds = (0..count).map(|i| number(first + i * size, 4).context("program headers beyond the first page"));
    Ok(!kinds.collect::<anyhow::Result<Vec<_>>>()?.contains(&3))
}
