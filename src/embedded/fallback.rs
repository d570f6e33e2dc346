//! What a caller gets whose call the service doesn't take within the dialplan's
//! patience: a clean 503, an announcement, or another number.
//!
//! All of it goes into Asterisk's dialplan, where a comma or a brace would mean
//! something: what could is refused here, before anything starts.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// 503: the carrier may try another way.
    Refuse,
    /// A sound as early media, unanswered and so unpaid, and then 503.
    Announce(PathBuf),
    /// Another number, through an endpoint of `carriers.conf`.
    Dial { number: String, endpoint: String },
}

/// The endpoint that calls are to go through isn't there.
#[derive(Debug, thiserror::Error)]
#[error(
    "--fallback dials through {endpoint}, but {file} has no section [{endpoint}]: add it there, or name another (asterisk-conf/README.md tells how)"
)]
pub struct NoEndpoint {
    endpoint: String,
    file: PathBuf,
}

/// What Asterisk reads without modules beyond those that are loaded.
const ENDINGS: [&str; 5] = ["wav", "gsm", "ulaw", "alaw", "sln"];

// === impl Fallback ===

impl Fallback {
    /// Whether the endpoint is there, in the folder that holds everything.
    ///
    /// # Errors
    /// A sentence that names the endpoint and the file that should have it.
    pub fn check(&self, data: &Path) -> Result<(), NoEndpoint> {
        let Self::Dial { endpoint, .. } = self else { return Ok(()) };
        let file = data.join("carriers.conf");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let section = format!("[{endpoint}]");
        if text.lines().any(|line| line.trim_start().starts_with(&section)) {
            return Ok(());
        }
        Err(NoEndpoint { endpoint: endpoint.clone(), file })
    }

    /// What is to be put in place of what, in Asterisk's configuration.
    pub fn values(&self) -> [(&'static str, String); 5] {
        let (what, sound, number, endpoint, modules) = match self {
            Self::Refuse => ("refuse", String::new(), "", "", ""),
            Self::Announce(file) => {
                let sound = file.with_extension("").display().to_string();
                let modules = "require = app_playback\nrequire = format_wav\nrequire = format_gsm\nrequire = format_pcm\nrequire = format_sln";
                ("announce", sound, "", "", modules)
            }
            Self::Dial { number, endpoint } => {
                ("dial", String::new(), &**number, &**endpoint, "require = app_dial")
            }
        };
        [
            ("@FALLBACK@", what.to_owned()),
            ("@FALLBACK_SOUND@", sound),
            ("@FALLBACK_NUMBER@", number.to_owned()),
            ("@FALLBACK_ENDPOINT@", endpoint.to_owned()),
            ("@FALLBACK_MODULES@", modules.to_owned()),
        ]
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Announce(file) => write!(f, "announce:{}", file.display()),
            Self::Dial { number, endpoint } => write!(f, "dial:{number}@{endpoint}"),
        }
    }
}

impl FromStr for Fallback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "refuse" => Ok(Self::Refuse),
            Some(("announce", file)) => sound(Path::new(file)).map(Self::Announce),
            Some(("dial", target)) => dial(target),
            _ => Err("must be refuse, announce:FILE or dial:NUMBER@ENDPOINT".to_owned()),
        }
    }
}

fn dial(target: &str) -> Result<Fallback, String> {
    let refusal = || {
        "must be dial:NUMBER@ENDPOINT: 1 to 32 digits, with or without a + before them, and an endpoint of letters, digits, - and _".to_owned()
    };
    let (number, endpoint) = target.split_once('@').ok_or_else(refusal)?;
    let digits = number.strip_prefix('+').unwrap_or(number);
    let is_number = (1..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let is_word = (1..=64).contains(&endpoint.len())
        && endpoint.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if is_number && is_word {
        Ok(Fallback::Dial { number: number.to_owned(), endpoint: endpoint.to_owned() })
    } else {
        Err(refusal())
    }
}

fn sound(file: &Path) -> Result<PathBuf, String> {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !ENDINGS.contains(&ending) {
        return Err(format!("the sound's file must end in one of .{}", ENDINGS.join(" .")));
    }
    let file = file.canonicalize().map_err(|error| format!("the sound can't be read: {error}"))?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    if !file.as_os_str().as_encoded_bytes().iter().copied().all(is_plain) {
        return Err(format!("{}: may have letters, digits and / . _ - + only", file.display()));
    }
    let mut head = Vec::new();
    File::open(&file)
        .and_then(|open| open.take(WAV_HEAD).read_to_end(&mut head))
        .map_err(|error| format!("the sound can't be read: {error}"))?;
    if ending == "wav" && !is_telephone_wav(&head) {
        return Err(format!("{}: must be PCM of 16 bits, mono, 8000 Hz", file.display()));
    }
    Ok(file)
}

const WAV_HEAD: u64 = 36;

/// The one kind of WAV that Asterisk plays: RIFF, and a `fmt ` chunk that says so.
fn is_telephone_wav(head: &[u8]) -> bool {
    let at = |from: usize, wanted: &[u8]| head.get(from..from + wanted.len()) == Some(wanted);
    at(0, b"RIFF")
        && at(8, b"WAVEfmt ")
        && at(20, &[1, 0, 1, 0])
        && at(24, &8_000_u32.to_le_bytes())
        && at(34, &[16, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_mean_something_to_the_dialplan_is_refused() {
        for text in [
            "",
            "ring",
            "dial:",
            "dial:+15550100",
            "dial:+15550100@",
            "dial:555,10@backup",
            "dial:${EXTEN}@backup",
            "dial:+15550100@back/up",
            "dial:+15550100@a@b",
            "announce:",
            "announce:/nowhere/at-all.wav",
            "announce:/etc/passwd",
        ] {
            assert!(text.parse::<Fallback>().is_err(), "{text}");
        }
        let dial: Fallback = "dial:+15550100@backup".parse().unwrap();
        assert_eq!(dial.to_string(), "dial:+15550100@backup");
        let folder = tempfile::tempdir().unwrap();
        assert!(dial.check(folder.path()).unwrap_err().to_string().contains("[backup]"));
        std::fs::write(folder.path().join("carriers.conf"), "; [x]\n[backup](trunk)\n").unwrap();
        assert!(dial.check(folder.path()).is_ok());
    }

    #[test]
    fn a_sound_that_asterisk_would_not_play_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let wav = |rate: u32| {
            let mut head = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
            head.extend(rate.to_le_bytes());
            head.extend((2 * rate).to_le_bytes());
            head.extend(b"\x02\0\x10\0data\0\0\0\0");
            let file = folder.path().join(format!("sound-{rate}.wav"));
            std::fs::write(&file, head).unwrap();
            format!("announce:{}", file.display()).parse::<Fallback>()
        };
        assert!(wav(8_000).is_ok());
        assert!(wav(44_100).unwrap_err().contains("8000 Hz"));
        let odd = folder.path().join("a,b.gsm");
        std::fs::write(&odd, b"").unwrap();
        assert!(format!("announce:{}", odd.display()).parse::<Fallback>().is_err());
    }
}
