"""
The whole pipeline in one process: `python -m chassis.server --source fused/main.py`.

For tests and small deployments (knative/overlays/small). The answers have the same bytes as those of the three
functions. The process also accepts the events of users, and exposes the metrics of all three functions.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server.asgi import as_function
from chassis.server.cors import Cors
from chassis.server.events import EventRouter
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from chassis.wire.cloudevents import is_event
from functions.extract_features import main as extract_features
from functions.rank_items import main as rank_items
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import PopularSettings
from fused.hop import FusedHop
from recsys.contracts.pages import pages_of

reader = Reader()
settings = ServingSettings.read(reader, name="fused", max_body_bytes=512 * 1024)
popular_settings = PopularSettings.read(reader)
cors = Cors.read(reader)
reader.finish()


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Open extract_features and rank_items, and yield the handler of recommend, which calls both."""
    exposition = service.exposition
    async with extract_features.open_handler(exposition) as features, rank_items.open_handler(exposition) as ranks:
        ranking = RankingClient(FusedHop("rank_items", ranks))
        popular = PopularList(ranking, popular_settings)
        async with popular.kept_fresh():
            recommender = Recommender(
                features=FeaturesClient(FusedHop("extract_features", features)), ranking=ranking, popular=popular
            )
            exposition.add(recommender.instruments())
            recommend = Recommend(recommender)
            # Both take requests for recommendations. Here recommend answers them, as at the public entry point.
            take_events = EventRouter({**features.routes, **recommend.routes})

            async def handle_request(call: Call) -> Reply:
                return await (take_events if is_event(call.headers) else recommend)(call)

            yield handle_request


service = Service("fused", open_handler, settings=settings, pages=pages_of("recommend"), cors=cors)
handle = as_function(service)
