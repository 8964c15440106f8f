// streams is the part of a kubelet that kwok leaves out: whoever executes a command in a container of a pod is connected
// with a Unix socket, where somebody answers for all of them.
//
// A connection begins with one line, POD/NAMESPACE/CONTAINER; from then on it is the command's input and output. The
// command itself is not looked at.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

const (
	// As a kubelet does by default.
	idle = 4 * time.Hour
	// How long a client may take to open the streams of a command.
	patience = 30 * time.Second
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:0", "where the API server finds us")
	socket := flag.String("socket", "", "the Unix socket of who answers")
	certificate := flag.String("cert", "", "our certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	clients := flag.String("client-ca", "", "the authority of the API server's certificate, PEM")
	flag.Parse()
	trusted := x509.NewCertPool()
	if pem, err := os.ReadFile(*clients); err != nil || !trusted.AppendCertsFromPEM(pem) {
		log.Fatalf("streams: no authority in %s: %v", *clients, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", answers{*socket}.exec)
	server := &http.Server{
		Addr:              *listen,
		Handler:           mux,
		ReadHeaderTimeout: patience,
		TLSConfig:         &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted},
		// A stream is made of a connection, which HTTP/2 does not give away.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	log.Fatal(server.ListenAndServeTLS(*certificate, *key))
}

// answers is where somebody answers.
type answers struct{ socket string }

func (a answers) exec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := r.PathValue("pod") + "/" + r.PathValue("namespace")
	remotecommand.ServeExec(w, r, a, pod, "", r.PathValue("container"), r.URL.Query()["command"], options, idle, patience,
		remotecommand.SupportedStreamingProtocols)
}

// ExecInContainer connects the streams of a command with the socket, until that is closed.
func (a answers) ExecInContainer(
	ctx context.Context, pod, _, container string, _ []string, in io.Reader, out, _ io.WriteCloser, _ bool,
	_ <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	if in == nil || out == nil {
		return errors.New("who answers needs input and output")
	}
	connection, err := net.Dial("unix", a.socket)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintf(connection, "%s/%s\n", pod, container); err != nil {
		return err
	}
	go func() {
		// The end of the input, whatever the reason, is all there is to tell.
		_, _ = io.Copy(connection, in)
		_ = connection.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(out, connection)
	return err
}
