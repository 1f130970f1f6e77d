//! The commands that the runbooks name are commands of this program. With `--help` behind them they are read and not run;
//! what is wrong with them is said before.

use std::path::Path;
use std::process::Command;

#[test]
fn the_commands_of_runbooks_exist() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let mut count = 0_usize;
    for entry in std::fs::read_dir(directory).expect("reads the runbooks") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("reads a runbook");
        let lines = text.lines().filter_map(|line| line.strip_prefix("      sekisho "));
        for line in lines {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            assert_ne!(arguments.last(), Some(&"--help"));
            let output = Command::new(env!("CARGO_BIN_EXE_sekisho"))
                .args(&arguments)
                .arg("--help")
                .env("NO_COLOR", "1")
                .output()
                .expect("starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: sekisho {line}: {stderr}", path.display());
            count += 1;
        }
    }
    assert!(count > 40, "the runbooks name {count} commands");
}
