//! Which commands are logged.

/// Which commands are logged: `include` wins over `exclude`.
#[derive(Debug, Clone, Default)]
pub struct CommandFilter {
    /// If not empty, these commands are logged and no others, whatever `exclude` says.
    pub include: Vec<String>,
    /// Commands that are not logged.
    pub exclude: Vec<String>,
}

impl CommandFilter {
    /// Whether a command of this name is logged.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|known| known == name);
        if self.include.is_empty() { !is_in(&self.exclude) } else { is_in(&self.include) }
    }
}
