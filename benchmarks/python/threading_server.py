"""threading_server.py PORT MODE: a thread for each connection, by the standard library."""

import socketserver

from server_arguments import BACKLOG, make_parser


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = BACKLOG


class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True


class OneLine(Handler):
    def handle(self):
        self.wfile.write(self.rfile.readline())


class Echo(Handler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    handlers = {"one-line": OneLine, "echo": Echo}
    with Server(("127.0.0.1", arguments.port), handlers[arguments.mode]) as server:
        server.serve_forever()
