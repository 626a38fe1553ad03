#!/usr/bin/env python3
"""Tells the story of each failover, from Understudy's events on RabbitMQ.

    pip install pika            (or: apt-get install python3-pika)
    AMQP_URL=amqp://events.mine:PASSWORD@broker:5672/%2f ./follow.py

It needs an account that may read events and nothing else (docs/events/README.md). Its queue is its own, bounded, and
goes an hour after the last time that it was here; with --state FILE it finds it again after a restart, and is told
what happened meanwhile.
"""

import argparse
import json
import os
import sys
import time
from collections import OrderedDict
from datetime import datetime

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

EXCHANGE = "understudy.events"
QUEUE = {
    "x-max-length": 10_000,  # of ours; beyond it the oldest go
    "x-overflow": "drop-head",
    "x-expires": 3_600_000,  # milliseconds without anybody who consumes it
}
UNACKNOWLEDGED = 32
REMEMBERED = 10_000


class Story:
    """What is known of the failovers, one line for each event."""

    def __init__(self):
        self.begun = {}

    def line(self, headers, routing_key, data):
        name = headers["cloudEvents:type"]
        at = datetime.fromisoformat(headers["cloudEvents:time"].replace("Z", "+00:00"))
        domain = routing_key.split(".", 1)[0]
        what = self.tell(name, at, data)
        if what is None:  # an event that is newer than this program, or none of a failover
            what = f"{name} {headers.get('cloudEvents:subject', '')}"
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000} {domain}: {what}"

    def tell(self, name, at, data):
        failover = data.get("failover")
        begun = self.begun.get(failover, {})
        since = lambda step: f"{(at - begun[step]).total_seconds():.1f} s" if step in begun else "some time"
        who = f"{data.get('server')} → {data.get('stand_in')}"
        if name == "failover.started":
            self.begun[failover] = {"started": at}
            while len(self.begun) > REMEMBERED:
                self.begun.pop(next(iter(self.begun)))
            text = f"{who}: STARTED because {data['reason']['summary']} (silent for {data['silent_ms'] / 1000:.1f} s)"
            return text + (f"; no room for {', '.join(data['disabled'])}" if data["disabled"] else "")
        if name == "failover.waiting":
            return f"{data['server']}: WAITING, {data['waits_for']}, because {data['reason']['summary']}"
        if name == "failover.serving":
            begun["serving"] = at
            text = f"{who}: SERVING after {since('started')}: {data['filming']} cameras film"
            return text + (f", not {', '.join(data['lost'])}" if data["lost"] else "")
        if name == "failover.restoring":
            begun["restoring"] = at
            return f"{who}: RESTORING after {since('serving')} of service"
        if name == "failover.progress":
            progress = data["progress"]
            return f"{data['server']}: {progress['segments_done']} of {progress['segments_total']} segments are back"
        if name == "failover.completed":
            progress = data["progress"]
            text = (
                f"{who}: COMPLETED, {progress['segments_done']} segments ({progress['bytes_done']} bytes) handed back "
                f"in {since('restoring')}; it lasted {since('started')}"
            )
            self.begun.pop(failover, None)
            return text + (f"; {data['damaged_count']} damaged" if data.get("damaged_count") else "")
        if name == "failover.aborted":
            self.begun.pop(failover, None)
            return f"{data['server']}: ABORTED, {data['why']}, after {since('started')}"
        return None


class Follower:
    def __init__(self, url, keys, state, until):
        self.url, self.keys, self.state, self.until = url, keys, state, until
        self.story = Story()
        self.seen = OrderedDict()  # ids: a repetition of the same message has the same
        self.queue = ""
        if state and os.path.exists(state):
            with open(state, encoding="utf-8") as file:
                self.queue = file.read().strip()

    def own_queue(self, connection):
        """The queue of before, if it is still there, or a new one."""
        if self.queue:
            channel = connection.channel()
            try:
                channel.queue_declare(self.queue, passive=True)
                return channel
            except ChannelClosedByBroker as error:
                if error.reply_code != 404:
                    raise
                print("the queue of before is gone: events may have been missed", file=sys.stderr, flush=True)
        channel = connection.channel()
        # The broker gives it a name that nobody guesses.
        self.queue = channel.queue_declare("", durable=True, arguments=QUEUE).method.queue
        for key in self.keys:
            channel.queue_bind(self.queue, EXCHANGE, routing_key=key)
        if self.state:
            with open(self.state, "w", encoding="utf-8") as file:
                file.write(self.queue)
        return channel

    def consume(self):
        """Until the connection ends; True when it heard what it was to wait for."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            channel = self.own_queue(connection)
            channel.basic_qos(prefetch_count=UNACKNOWLEDGED)
            print(f"following {', '.join(self.keys)}", file=sys.stderr, flush=True)
            for method, properties, body in channel.consume(self.queue):
                last = self.handle(method.routing_key, properties, body)
                # Only now: what was not acknowledged comes again.
                channel.basic_ack(method.delivery_tag)
                if last:
                    return True
            return False
        finally:
            if connection.is_open:
                connection.close()

    def handle(self, routing_key, properties, body):
        headers = properties.headers or {}
        try:
            if headers["cloudEvents:id"] in self.seen:
                return False
            line = self.story.line(headers, routing_key, json.loads(body))
        except (KeyError, TypeError, ValueError) as error:
            # Coming again would not mend it.
            print(f"{routing_key}: can't be read: {error!r}", file=sys.stderr, flush=True)
            return False
        self.seen[headers["cloudEvents:id"]] = None
        while len(self.seen) > REMEMBERED:
            self.seen.popitem(last=False)
        print(line, flush=True)
        return headers["cloudEvents:type"] == self.until

    def run(self):
        pause = 0.2
        while True:
            try:
                began = time.monotonic()
                if self.consume():
                    return
            except (AMQPError, OSError) as error:
                print(f"the broker is away ({error!r}): trying again", file=sys.stderr, flush=True)
                if time.monotonic() - began > 30:
                    pause = 0.2
            time.sleep(pause)
            pause = min(pause * 2, 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", default=["*.failover.*"], help="routing keys, such as east.# or *.camera.lost")
    parser.add_argument("--state", help="a file that keeps the queue's name over restarts")
    parser.add_argument("--until", metavar="EVENT", help="end after this event, e.g. failover.completed")
    arguments = parser.parse_args()
    url = os.environ.get("AMQP_URL")
    if not url and os.environ.get("AMQP_URL_FILE"):
        with open(os.environ["AMQP_URL_FILE"], encoding="utf-8") as file:
            url = file.read().strip()
    if not url:
        parser.error("set AMQP_URL, or AMQP_URL_FILE, to amqp://USER:PASSWORD@HOST:5672/%2f")
    try:
        Follower(url, arguments.keys, arguments.state, arguments.until).run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
