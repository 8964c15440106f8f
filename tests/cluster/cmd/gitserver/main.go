// Command gitserver serves the bare repositories of a folder over HTTPS, by the git program of the machine or image that
// it runs in. The tests put it into a pod of an image that has git and no server.
//
//	GIT_PASSWORD=... gitserver -root FOLDER -cert FILE -key FILE [-listen :8443] [-open config.git]
//
// The user `git` with that password may read and push all of them; everybody may read the one that is open.
package main

import (
	"bytes"
	"crypto/subtle"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"strings"
)

// More is no push of a test.
const mostBytes = 64 << 20

func main() {
	root := flag.String("root", "", "the `folder` with the repositories")
	certificate := flag.String("cert", "", "the certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	listen := flag.String("listen", ":8443", "where to listen")
	open := flag.String("open", "", "the `repository` that everybody may read")
	flag.Parse()
	password := os.Getenv("GIT_PASSWORD")
	if password == "" {
		log.Fatal("GIT_PASSWORD is not set")
	}
	git, err := exec.LookPath("git")
	if err != nil {
		log.Fatal(err)
	}
	backend := func(who string) *cgi.Handler {
		return &cgi.Handler{
			Path:       git,
			Args:       []string{"http-backend"},
			Env:        []string{"GIT_PROJECT_ROOT=" + *root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=" + who},
			InheritEnv: []string{"HOME"},
		}
	}
	known, anybody := backend("git"), backend("")
	serve := func(w http.ResponseWriter, r *http.Request) {
		_, given, _ := r.BasicAuth()
		isKnown := subtle.ConstantTimeCompare([]byte(given), []byte(password)) == 1
		// Git asks for this service before it pushes.
		pushes := strings.Contains(r.URL.RequestURI(), "git-receive-pack")
		isOpen := *open != "" && strings.HasPrefix(r.URL.Path, "/"+*open+"/") && !pushes
		log.Printf("%s %s known=%t", r.Method, r.URL.RequestURI(), isKnown)
		if !isKnown && !isOpen {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		// CGI wants to know the length of what comes.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		if isKnown {
			known.ServeHTTP(w, r)
		} else {
			anybody.ServeHTTP(w, r)
		}
	}
	log.Fatal(http.ListenAndServeTLS(*listen, *certificate, *key, http.HandlerFunc(serve)))
}
