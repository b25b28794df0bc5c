"""A gRPC backend that answers every unary call with its own name.

grpc_echo_server.py NAME ADDRESS:PORT     prints "ready PORT" once it listens.
"""
import sys
from concurrent import futures

import grpc

name, address = sys.argv[1], sys.argv[2]


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != "/pilotfish.test.Echo/Say":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[Echo()])
port = server.add_insecure_port(address)
server.start()
print("ready", port, flush=True)
server.wait_for_termination()
