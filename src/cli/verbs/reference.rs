//! Objects as people name them: `run fix`, `run/fix`.

use clap::Args;

use super::Error;
use crate::{
    kinds::{Kind, Object, ObjectId},
    names::Namespace,
    ports::Objects,
};

/// One object, as typed.
#[derive(Debug, Args)]
pub(super) struct ObjectArgs {
    /// The object: KIND/NAME, or KIND and NAME
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// The name, when the first word is a kind alone
    name: Option<String>,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: Namespace,
}

impl ObjectArgs {
    pub(super) fn id(&self) -> Result<ObjectId, Error> {
        match choice(&self.object, self.name.as_deref())? {
            (kind, Some(name)) => Ok(ObjectId::new(kind, self.namespace.clone(), name.parse()?)),
            (kind, None) => {
                Err(Error::Usage(format!("which {kind}? Name it: {}/NAME", kind.typed_names()[1])))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of(object: &str) -> Self {
        Self { object: object.to_owned(), name: None, namespace: "default".parse().unwrap() }
    }
}

/// A kind and perhaps a name, from the words `kind`, `kind name` or `kind/name`.
pub(super) fn choice<'a>(first: &'a str, second: Option<&'a str>) -> Result<(Kind, Option<&'a str>), Error> {
    let (kind, name) = match (first.split_once('/'), second) {
        (None, name) => (first, name),
        (Some((kind, name)), None) => (kind, Some(name)),
        (Some(_), Some(second)) => {
            return Err(Error::Usage(format!("{first} names an object already; what is {second:?}?")));
        }
    };
    Ok((kind_of(kind)?, name))
}

fn kind_of(word: &str) -> Result<Kind, Error> {
    Kind::from_typed_name(word).ok_or_else(|| {
        let known = Kind::OURS.map(|kind| kind.typed_names().join(" or ")).join(", ");
        Error::Usage(format!("{word:?} is no kind; kinds are {known}, and run for a HarnessRun"))
    })
}

/// `harnessrun/fix`: what the verbs take.
pub(super) fn short(id: &ObjectId) -> String {
    format!("{}/{}", id.kind.typed_names()[1], id.name)
}

/// The object, which must be there.
pub(super) async fn read(objects: &dyn Objects, id: &ObjectId) -> Result<Object, Error> {
    objects.get(id).await?.ok_or_else(|| Error::NotFound(id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_in_two_ways() {
        assert_eq!(choice("runs", None).unwrap(), (Kind::HarnessRun, None));
        assert_eq!(choice("hrun", Some("a")).unwrap(), (Kind::HarnessRun, Some("a")));
        assert_eq!(choice("Session/a", None).unwrap(), (Kind::Session, Some("a")));
        assert!(choice("session/a", Some("b")).is_err());
        let error = choice("pod", None).unwrap_err().to_string();
        assert!(error.contains("\"pod\" is no kind") && error.contains("egp"), "{error}");
        assert!(ObjectArgs::of("session").id().is_err());
        assert!(matches!(ObjectArgs::of("session/A").id(), Err(Error::Name(_))));
    }
}
