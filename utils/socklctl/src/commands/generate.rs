// SPDX-License-Identifier: GPL-2.0

//! Manual pages and shell completions, generated from the definition of the command line.

use crate::{
    cli::{Cli, GenerateArgs},
    error::Error,
};
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use std::{fs, io, path::Path};

pub(crate) fn run(args: &GenerateArgs) -> Result<(), Error> {
    let to = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| Error::File {
            what: "write to",
            path: path.into(),
            source,
        })
    };
    if let Some(folder) = &args.man {
        to(folder, man(folder))?;
    }
    if let Some(folder) = &args.completions {
        to(folder, completions(folder))?;
    }
    Ok(())
}

fn man(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}

fn completions(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut Cli::command(), "socklctl", folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command_and_a_file_for_every_shell() {
        let folder = std::env::temp_dir().join(format!("socklctl-generate-{}", std::process::id()));
        let args = GenerateArgs {
            man: Some(folder.join("man")),
            completions: Some(folder.join("completions")),
        };
        run(&args).unwrap();
        for name in ["socklctl.1", "socklctl-peer-add.1", "socklctl-import.1"] {
            let page = fs::read_to_string(folder.join("man").join(name)).unwrap();
            assert!(page.starts_with(".ie"), "{name}: {page}");
        }
        let hidden = folder.join("man/socklctl-generate.1");
        assert!(!hidden.exists(), "{}", hidden.display());
        for name in ["socklctl.bash", "socklctl.fish", "_socklctl"] {
            let text = fs::read_to_string(folder.join("completions").join(name)).unwrap();
            assert!(text.contains("interface"), "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
