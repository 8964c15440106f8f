//! The Containerfile says of the image what the charts and the agents' pods take for granted. There is no container builder
//! here, so it is read, not built.

use ostler::harness::pod::PROGRAM;
use serde_json::Value;

use super::{IMAGE, ROOT, helm::Helm, objects, of_kind};

/// The instructions, without comments.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("{ROOT}/Containerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(word, rest)| (word.to_owned(), rest.to_owned()))
        .collect()
}

#[tokio::test]
async fn the_image_has_the_program_where_pods_look_for_it_and_the_user_that_they_run_as() {
    let instructions = instructions();
    let words: Vec<&str> = instructions.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["FROM", "COPY", "COPY", "USER", "ENTRYPOINT"]);
    let of = |wanted: &str| &instructions.iter().find(|(word, _)| word == wanted).unwrap().1;
    assert_eq!(of("FROM"), "scratch");
    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT")).unwrap();
    assert_eq!(entry, [PROGRAM], "the program alone, so that the charts give it nothing but arguments");
    assert_eq!(*of("COPY"), format!("--chmod=755 ostler {PROGRAM}"));

    let (user, group) = of("USER").split_once(':').unwrap();
    let [user, group] =
        [user, group].map(|id| id.parse::<u32>().expect("a number: runAsNonRoot knows no names"));
    assert!(user > 0);
    let all = objects(&Helm::alone().await.template("a", &[IMAGE]).await.succeeded());
    for deployment in of_kind(&all, "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsUser"], user);
        assert_eq!(pod["securityContext"]["runAsGroup"], group);
        assert_eq!(pod["containers"][0].get("command"), None::<&Value>, "its entry point is the program");
    }
}
