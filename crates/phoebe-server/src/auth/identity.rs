//! An authenticated user.

use std::collections::HashSet;
use std::sync::Arc;

use super::role::Role;
use crate::store::User;

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's id as text.
    pub user_id: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// First and last name; may be empty.
    pub full_name: String,
    /// What they are to the server.
    pub role: Role,
    /// Ids of the students whose sessions this user looks after; empty unless they are an
    /// instructor.
    pub students: Arc<HashSet<String>>,
    /// How they proved who they are.
    pub credential: Credential,
}

/// How a user proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Credential {
    /// By a token, which a login gave.
    #[default]
    Token,
    /// By an API key of theirs.
    ApiKey,
}

impl Identity {
    /// Whether this user may do everything with everybody's sessions.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether this user is an instructor in a group of the student with this id.
    #[must_use]
    pub fn looks_after(&self, user_id: &str) -> bool {
        self.role == Role::Instructor && self.students.contains(user_id)
    }
}

impl From<&User> for Identity {
    fn from(user: &User) -> Self {
        Self {
            user_id: user.id.to_string(),
            email: user.email.clone(),
            full_name: format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
            role: Role::or_student(&user.role),
            ..Self::default()
        }
    }
}
