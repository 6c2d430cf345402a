//! The mechanism behind the table of settings: one definition of a key gives its field, its default
//! and its [`Key`]. It knows no particular key.

use toml::Value;

/// One `[section]` of the settings.
pub struct Section<S: 'static> {
    /// Its name in the file.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
    /// Its keys, in the order of documentation.
    pub keys: &'static [Key<S>],
}

/// One setting: everything that is known of it besides its value.
pub struct Key<S> {
    /// The section it stands in.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What is said at the start if somebody sets it, where it does not do what its name says.
    pub note: Option<&'static str>,
    /// Whether a running server takes a new value at SIGHUP.
    pub live: bool,
    /// What it accepts, in words.
    pub kind: fn() -> String,
    /// Sets it from a value of a file.
    pub(super) read: fn(&mut S, &Value) -> Result<(), String>,
    /// Sets it from the text of a variable or flag.
    pub(super) read_text: fn(&mut S, &str) -> Result<(), String>,
    /// Its value, secrets masked.
    pub(super) write: fn(&S) -> Value,
    /// Whether both have the same value.
    pub(super) is_same: fn(&S, &S) -> bool,
    /// Gives the first the value of the second.
    pub(super) copy: fn(&mut S, &S),
}

impl<S> Key<S> {
    /// The value in `settings`, secrets masked.
    #[must_use]
    pub fn value(&self, settings: &S) -> Value {
        (self.write)(settings)
    }

    /// The name with its section, as people write it.
    #[must_use]
    pub fn title(&self) -> String {
        format!("[{}] {}", self.section, self.name)
    }
}

/// Defines the sections' types, their defaults, [`Settings`] and `Settings::SECTIONS`.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $section_type:ident {$(
            $(#[doc = $doc:literal])+
            $key:ident: $type:ty = $default:expr $(, check($check:expr))? $(, note($note:expr))?
                $(, live($live:literal))?;
        )+}
    )+) => {
        /// All settings, after defaults, file, environment and flags.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Settings {$(
            $(#[doc = $section_doc])+
            pub $section: $section_type,
        )+}

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $section_type {$(
                $(#[doc = $doc])+
                pub $key: $type,
            )+}

            impl Default for $section_type {
                fn default() -> Self {
                    Self {$( $key: $default, )+}
                }
            }
        )+

        impl Settings {
            /// Every setting there is.
            pub const SECTIONS: &'static [$crate::config::table::Section<Settings>] = &[$(
                $crate::config::table::Section {
                    name: stringify!($section),
                    doc: concat!($($section_doc),+),
                    keys: &[$(
                        $crate::config::table::Key {
                            section: stringify!($section),
                            name: stringify!($key),
                            doc: concat!($($doc),+),
                            note: $crate::config::table::settings!(@note $($note)?),
                            live: $crate::config::table::settings!(@live $($live)?),
                            kind: <$type as $crate::config::value::Setting>::kind,
                            read: |settings, value| {
                                let value: $type = $crate::config::value::Setting::read(value)?;
                                $( ($check)(&value)?; )?
                                settings.$section.$key = value;
                                Ok(())
                            },
                            read_text: |settings, text| {
                                let value: $type = $crate::config::value::Setting::read_text(text)?;
                                $( ($check)(&value)?; )?
                                settings.$section.$key = value;
                                Ok(())
                            },
                            write: |settings| {
                                $crate::config::value::Setting::write(&settings.$section.$key)
                            },
                            is_same: |one, other| one.$section.$key == other.$section.$key,
                            copy: |to, from| to.$section.$key = from.$section.$key.clone(),
                        },
                    )+],
                },
            )+];
        }
    };
    (@note) => { None };
    (@note $note:expr) => { Some($note) };
    (@live) => { false };
    (@live $live:literal) => { $live };
}

pub(super) use settings;
