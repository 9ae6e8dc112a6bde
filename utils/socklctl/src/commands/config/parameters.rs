// SPDX-License-Identifier: GPL-2.0

//! The module's parameters, as files in `/sys/module`.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

/// The folder with a file for each parameter.
#[derive(Clone, Debug)]
pub(crate) struct Parameters(PathBuf);

/// A parameter of the loaded module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) value: String,
    /// Whether it can be changed while the module is loaded.
    pub(crate) changeable: bool,
}

impl Parameters {
    /// Those of the loaded module.
    pub(crate) fn of_module() -> Self {
        Self("/sys/module/ksocklnd/parameters".into())
    }

    /// Those in another folder.
    #[cfg(test)]
    pub(crate) fn at(folder: &std::path::Path) -> Self {
        Self(folder.into())
    }

    /// The parameter of this name; nothing, if there is none.
    pub(crate) fn get(&self, name: &str) -> io::Result<Option<Parameter>> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Ok(None);
        }
        let path = self.0.join(name);
        let mode = match fs::metadata(&path) {
            Ok(file) => file.permissions().mode(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(Some(Parameter {
            value: fs::read_to_string(&path)?.trim().to_string(),
            changeable: mode & 0o200 != 0,
        }))
    }

    /// Changes the parameter of this name. `EINVAL` if the module does not take the value.
    pub(crate) fn set(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(name), value)
    }
}

/// Whether two texts are the same value: numbers may be written in several ways.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let number = |text: &str| {
        let (sign, digits) = text
            .strip_prefix('-')
            .map_or((1, text), |digits| (-1, digits));
        let number = match digits.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => digits.parse::<i64>(),
        };
        number.ok().map(|number| number * sign)
    };
    one == other || number(one).is_some_and(|one| number(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_numbers() {
        for (one, other, same) in [
            ("8", "0x8", true),
            ("-1", "-0x1", true),
            ("secure", "secure", true),
            ("secure", "all", false),
            ("8", "9", false),
            ("", "0", false),
        ] {
            assert_eq!(is_same(one, other), same, "{one} {other}");
        }
    }
}
