//! A disk that can be filled: a few MiB of memory, mounted where one service alone sees it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The variable that leaves out the tests that need one.
const WITHOUT: &str = "CAPCONDUIT_WITHOUT_SMALL_DISK";

/// What of a service's data is to be there.
#[derive(Clone, Copy)]
pub enum SmallDisk {
    Journal,
    JournalAndDatabase,
}

/// Mounts the disk, puts links to it where the data is looked for, and goes on as the
/// service. Whoever changes into a namespace has to ask anew to end with its parent.
const MOUNT: &str = r#"
set -e
data=$1 all=$2
shift 2
mkdir -p "$data/small"
mount -t tmpfs -o size=16m,mode=700 none "$data/small"
mkdir "$data/small/journal"
ln -sfn small/journal "$data/journal"
if [ "$all" = all ]; then ln -sfn small/capconduit.db "$data/capconduit.db"; fi
exec setpriv --pdeathsig TERM "$@"
"#;

impl SmallDisk {
    pub const FOLDER: &str = "small";

    /// Whether it is to be tried: everywhere but where [`WITHOUT`] says that this machine
    /// lets nobody mount one. It needs no root, but namespaces.
    pub fn is_tried() -> bool {
        if std::env::var(WITHOUT).is_ok_and(|said| said == "1") {
            eprintln!("not tried, because of {WITHOUT}");
            return false;
        }
        let mut command = namespace();
        command.args(["sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]);
        let mounted = command.output().expect("unshare, of util-linux");
        assert!(
            mounted.status.success(),
            "this machine allows no user namespaces with mounts of their own; \
             {WITHOUT}=1 leaves out what needs one: {mounted:?}"
        );
        true
    }

    /// Starts `program` with it.
    pub fn command(self, program: &Path, data: &Path) -> Command {
        let all = match self {
            Self::Journal => "journal",
            Self::JournalAndDatabase => "all",
        };
        let mut command = namespace();
        command.args(["sh", "-c", MOUNT, "sh"]).arg(data).arg(all).arg(program);
        command
    }
}

fn namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]);
    command
}

/// Leaves no byte on the disk that this folder is on.
pub fn fill(folder: &Path) {
    let mut file = File::create(folder.join("filler")).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

pub fn make_room(folder: &Path) {
    fs::remove_file(folder.join("filler")).unwrap();
}
