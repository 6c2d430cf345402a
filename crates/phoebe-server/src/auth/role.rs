//! What a user is to the server. It names the roles; what each may do is said where it is used.

use std::fmt::{self, Display, Formatter};

/// A user's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Role {
    /// Uses their own sessions.
    #[default]
    Student,
    /// Also looks after the sessions of the students in their groups.
    Instructor,
    /// May do everything with everybody's sessions.
    Admin,
}

impl Role {
    /// The word in the database, in tokens and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Student => "student",
            Self::Instructor => "instructor",
            Self::Admin => "admin",
        }
    }

    /// The role that `word` names.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Student, Self::Instructor, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == word.trim().to_ascii_lowercase())
    }

    /// The role that a database or another service calls `word`; what is not known has the fewest
    /// rights.
    #[must_use]
    pub fn or_student(word: &str) -> Self {
        Self::named(word).unwrap_or_default()
    }
}

impl Display for Role {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_role_has_the_fewest_rights() {
        for role in [Role::Student, Role::Instructor, Role::Admin] {
            assert_eq!(Role::or_student(role.as_str()), role);
        }
        for word in ["", "root", "administrator", "admin2"] {
            assert_eq!(Role::or_student(word), Role::Student, "{word}");
        }
    }
}
