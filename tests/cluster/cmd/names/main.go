// Command names is the name server of the test node: it knows the services of the cluster, and asks for other names where
// a test may run a server.
//
//	names --kubeconfig FILE --listen ADDRESS:53 --others ADDRESS:53
//
// It says the address of NAME.NAMESPACE.svc.cluster.local over UDP. A name that nobody knows does not exist, so a search
// list goes on.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	suffix = ".svc.cluster.local."
	domain = ".cluster.local."
	// Whoever asks us asks again after 5 s.
	patience = 2 * time.Second
)

// Services that are made anew have new addresses, so nobody should remember one for long.
const seconds = 1

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the `file` that says where the API server is")
	listen := flag.String("listen", "", "the `address` where questions come")
	others := flag.String("others", "", "the `address` of a server for all names but the cluster's; it may be that nobody is there")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(config), 0)
	services := factory.Core().V1().Services()
	services.Informer()
	factory.Start(nil)
	factory.WaitForCacheSync(nil)
	socket, err := net.ListenPacket("udp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	server := server{services.Lister(), *others}
	for packet := make([]byte, 4096); ; {
		length, from, err := socket.ReadFrom(packet)
		if err != nil {
			log.Fatal(err)
		}
		question := bytes.Clone(packet[:length])
		go func() {
			if answer, err := server.answer(question); err != nil {
				log.Printf("%v: %v", from, err)
			} else if _, err := socket.WriteTo(answer, from); err != nil {
				log.Printf("%v: %v", from, err)
			}
		}()
	}
}

type server struct {
	services listers.ServiceLister
	others   string
}

func (s server) answer(packet []byte) ([]byte, error) {
	var asked dnsmessage.Parser
	header, err := asked.Start(packet)
	if err != nil {
		return nil, err
	}
	question, err := asked.Question()
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(question.Name.String())
	if !strings.HasSuffix(name, domain) {
		if answer := s.ask(packet); answer != nil {
			return answer, nil
		}
	}
	said := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired,
		},
		Questions: []dnsmessage.Question{question},
	}
	address := find(s.services, name)
	switch {
	case address == nil:
		said.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		// A name without an answer of the other types exists all the same.
		said.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: seconds},
			Body:   &dnsmessage.AResource{A: [4]byte(address)},
		}}
	}
	return said.Pack()
}

// ask gives what the other server answers, or nil.
func (s server) ask(packet []byte) []byte {
	connection, err := net.DialTimeout("udp", s.others, patience)
	if err != nil {
		return nil
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	if _, err := connection.Write(packet); err != nil {
		return nil
	}
	answer := make([]byte, 4096)
	length, err := connection.Read(answer)
	if err != nil {
		return nil
	}
	return answer[:length]
}

// find gives the address of a service, or nil.
func find(services listers.ServiceLister, name string) net.IP {
	name, found := strings.CutSuffix(name, suffix)
	parts := strings.Split(name, ".")
	if !found || len(parts) != 2 {
		return nil
	}
	service, err := services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil
	}
	return net.ParseIP(service.Spec.ClusterIP).To4()
}
