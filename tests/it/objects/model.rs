//! Random writes, beside a model that knows what an object's spec, generation and life must be.

use std::collections::BTreeMap;

use ostler::ports::objects::At;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

#[tokio::test]
async fn random_writes_agree_with_a_simple_model() {
    for seed in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects");
        random_writes(seed, &path).await;
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Modelled {
    image: String,
    generation: i64,
    held: bool,
    marked: bool,
}

async fn random_writes(seed: u64, folder: &Path) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model: BTreeMap<String, Modelled> = BTreeMap::new();
    let mut store = open(folder);
    let mut last = 0;
    for step in 0..120 {
        let name = format!("a{}", random.random_range(0..3));
        let image = format!("i{}", random.random_range(0..3));
        let now = store.get(&id(&name)).await.unwrap();
        let at = now.as_ref().map(|object| At::of(object).unwrap());
        let context = format!("seed {seed} step {step} {name}");
        match random.random_range(0..7) {
            0 => {
                let held = random.random_bool(0.5);
                let mut object = agent(&name, &codex(&image));
                object.metadata.finalizers = held.then(|| vec!["ostler.dev/x".to_owned()]);
                let result = store.create(&object, "maker").await;
                assert_eq!(result.is_ok(), !model.contains_key(&name), "{context}: {result:?}");
                model.entry(name).or_insert(Modelled { image, generation: 1, held, marked: false });
            }
            1 => {
                store.apply(&agent(&name, &codex(&image)), "s", true, None).await.expect(&context);
                let new = Modelled { image: image.clone(), generation: 1, held: false, marked: false };
                change(model.entry(name).or_insert(new), image);
            }
            kind @ 2..=5 => {
                let Some(at) = at else { continue };
                let modelled = model.get_mut(&name).expect(&context);
                match kind {
                    2 => {
                        let patch = json!({"spec": {"image": image}});
                        store.merge(&id(&name), &at, &patch, "m").await.expect(&context);
                        change(modelled, image);
                    }
                    3 => {
                        let status = json!({"observedGeneration": step});
                        store.write_status(&id(&name), &at, &status, "c").await.expect(&context);
                    }
                    4 => {
                        store.delete(&id(&name), &at).await.expect(&context);
                        if modelled.held {
                            modelled.generation += i64::from(!modelled.marked);
                            modelled.marked = true;
                        } else {
                            model.remove(&name);
                        }
                    }
                    _ => {
                        let patch = json!({"metadata": {"finalizers": null}});
                        store.merge(&id(&name), &at, &patch, "m").await.expect(&context);
                        modelled.held = false;
                        if modelled.marked {
                            model.remove(&name);
                        }
                    }
                }
            }
            _ => {
                drop(store);
                store = open(folder);
            }
        }
        let objects = store.list(Kind::Agent, None).await.unwrap();
        let stored: BTreeMap<String, Modelled> =
            objects.iter().map(|object| (object.name_any(), seen(object))).collect();
        assert_eq!(stored, model, "{context}");
        let newest = objects.iter().map(number).max().unwrap_or(last);
        assert!(newest >= last || objects.len() < 3, "{context}: versions never fall");
        last = newest.max(last);
    }
}

fn change(modelled: &mut Modelled, image: String) {
    if modelled.image != image {
        modelled.generation += 1;
        modelled.image = image;
    }
}

fn seen(object: &Object) -> Modelled {
    Modelled {
        image: object.data["spec"]["image"].as_str().unwrap().to_owned(),
        generation: object.metadata.generation.unwrap(),
        held: !object.finalizers().is_empty(),
        marked: object.metadata.deletion_timestamp.is_some(),
    }
}
