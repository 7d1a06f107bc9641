"""Files as teams have them: other delimiters, names of columns, times, compressions, and lines that are faulty."""

import gzip
import io
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.inputs import FORMATS
from offline.progress import progress
from offline.reading.columns import parse_mapping
from offline.reading.csv_files import read_csv
from offline.reading.faults import DataError, Faults
from offline.reading.lines import Row
from offline.reading.movielens import read_movielens
from offline.state import StateDirectory
from offline.sufficiency import ENOUGH_ITEMS, ENOUGH_USERS, find_shortages
from recrank.artefact import Item
from recsys.declaration.values import Malformed, parse_time_us
from recsys.records import HistoryItem, UserRecord
from tools.cli.verbs import main as run_verb

pytestmark = pytest.mark.may_block

SECOND_US = 1_000_000


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, **options) -> list[Row]:
    return list(read_csv(path, items=None, users=None, **options).rows)


class TestColumns:
    """The names of columns."""

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_the_delimiter_is_found(self, tmp_path, delimiter):
        """The header decides the delimiter, also if a title in it has another candidate."""
        header, line = ["user_id", "item_id", "a note, of sorts; long"], ["u", "i", "x"]
        quoted = [f'"{name}"' for name in header]
        path = write(tmp_path / "a.txt", f"{delimiter.join(quoted)}\n{delimiter.join(line)}\n")
        assert rows(path) == [Row("u", "i", 1.0, None)]

    @pytest.mark.parametrize("header", ["USER_ID,Item ID", "userId,itemId", " user-id , ITEM_ID ", "user,item"])
    def test_case_and_separators_of_names_do_not_count(self, tmp_path, header):
        """`USER_ID`, `userId` and `user-id` are one name."""
        assert rows(write(tmp_path / "a.csv", f"{header}\nu,i\n")) == [Row("u", "i", 1.0, None)]

    def test_columns_are_mapped(self, tmp_path):
        """--map names columns that have no usual name, and takes precedence over the usual names."""
        path = write(tmp_path / "a.csv", "uid;SKU;item_id;ts;stars\nu;i;wrong;3;4.5\n")
        mapped = parse_mapping("user=uid,item=sku,time=ts,weight=stars")
        assert rows(path, mapped=mapped) == [Row("u", "i", 4.5, 3 * SECOND_US)]

    def test_the_files_of_items_and_users_may_keep_their_usual_names(self, tmp_path):
        """A field may have a column of another name in each file; the usual names hold where a file lacks them."""
        interactions = write(tmp_path / "a.csv", "uid,sku\nu,i\n")
        items = write(tmp_path / "i.csv", "article,label\ni,Tea\n")
        users = write(tmp_path / "u.csv", "user_id,age\nu,30\n")
        mapped = parse_mapping("user=uid,item=sku,item=article,title=label")
        source = read_csv(interactions, items=items, users=users, mapped=mapped)
        assert (source.items, source.age_groups) == ({"i": Item("i", "Tea")}, {"u": "25-34"})

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("user", "'user' is not FIELD=COLUMN"),
            ("user=", "'user=' is not FIELD=COLUMN"),
            ("buyer=uid", "'buyer' is not a field; the fields are user, item, weight, time"),
        ],
    )
    def test_a_malformed_mapping_is_explained(self, text, says):
        """The error names the part of the mapping that is wrong."""
        with pytest.raises(ValueError, match=says):
            parse_mapping(text)

    def test_a_column_that_is_not_there_is_named(self, tmp_path):
        """The error shows the columns that the file has, and how to name them."""
        path = write(tmp_path / "a.csv", "buyer,sku\nu,i\n")
        with pytest.raises(
            DataError, match="missing: user_id, item_id; found: buyer, sku; name other columns with --map"
        ):
            rows(path)
        with pytest.raises(DataError, match="no column 'uid' for --map user"):
            rows(path, mapped={"user": ("uid",), "item": ("sku",)})

    def test_a_name_that_stands_twice_is_refused(self, tmp_path):
        """The reader does not choose between two columns of one name."""
        with pytest.raises(DataError, match="names the column 'user_id' twice"):
            rows(write(tmp_path / "a.csv", "user_id,userId,item_id\nu,v,i\n"))

    def test_movielens_of_today_is_recognised(self, tmp_path):
        """`ratings.csv` and `movies.csv` are read with their own headers, as csv and as movielens."""
        ratings = write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n")
        films = '296,"Pulp Fiction, Uncut (1994)",Comedy|Crime\n7,Untold,(no genres listed)\n'
        movies = write(tmp_path / "movies.csv", f"movieId,title,genres\n{films}")
        for read in (read_csv, read_movielens):
            source = read(ratings, items=movies, users=None)
            assert list(source.rows) == [Row("1", "296", 5.0, 1_147_880_044 * SECOND_US)]
            assert source.items == {
                "296": Item("296", "Pulp Fiction, Uncut (1994)", {"category": ("Comedy", "Crime")}),
                "7": Item("7", "Untold"),
            }


class TestTimes:
    """Times in the units and the notations that exports have."""

    @pytest.mark.parametrize(
        ("text", "time_s"),
        [
            ("1700000000", 1_700_000_000),
            ("1700000000.25", 1_700_000_000.25),
            ("1700000000000", 1_700_000_000),
            ("1700000000000000", 1_700_000_000),
            ("1.7e18", 1_700_000_000),
            ("0", 0),
            ("2024-01-31T00:00:00Z", 1_706_659_200),
            ("2024-01-31T01:00:00+01:00", 1_706_659_200),
            ("2024-01-30 19:00:00.5-0500", 1_706_659_200.5),
            ("2024-01-31", 1_706_659_200),
            ("20240131", 1_706_659_200),
        ],
    )
    def test_units_and_zones_are_recognised(self, text, time_s):
        """A number is read in the largest unit that gives a time before 2100; other text is ISO 8601."""
        assert parse_time_us(text) == time_s * SECOND_US

    @pytest.mark.parametrize("text", ["5e9", "nan", "-1", "31/01/2024", "1960-01-01", "2101-01-01", "1e30", "inf"])
    def test_other_text_is_a_fault(self, text):
        """A value that could be a time of two units, or of none, is not guessed."""
        with pytest.raises(Malformed, match="the timestamp must be"):
            parse_time_us(text)

    @given(st.integers(100_000_000, 4_102_444_799), st.sampled_from([1, 1_000, 1_000_000]))
    def test_a_time_is_the_same_in_every_unit(self, time_s, unit):
        """From 1973 to 2100 the unit never changes the time."""
        assert parse_time_us(str(time_s * unit)) == time_s * SECOND_US

    def test_an_interaction_of_the_future_is_a_fault(self, tmp_path):
        """The newest time of a file says when "now" is; times up to a day ahead may be of another zone."""
        soon = int(time.time()) + 3_600
        path = write(tmp_path / "a.csv", f"user_id,item_id,time\nu,a,{soon}\nu,b,2099-01-01\n")
        faults = Faults(allowed=1)
        assert rows(path, faults=faults) == [Row("u", "a", 1.0, soon * SECOND_US)]
        assert faults.describe() == [f"{path}:3: the timestamp lies in the future: '2099-01-01'"]


class TestContent:
    """Compressed files, marks of encodings, and quoted fields."""

    def test_quoted_fields_may_hold_line_ends(self, tmp_path):
        """A record that extends over lines is one record, and later faults name the right line."""
        path = write(tmp_path / "a.csv", 'user_id,note,item_id\r\nu,"a\r\nb, ""c""",i\r\nu,x,\r\n')
        faults = Faults(allowed=1)
        assert rows(path, faults=faults) == [Row("u", "i", 1.0, None)]
        assert faults.describe() == [f"{path}:4: item_id must be 1 to 128 printable characters, not ''"]

    def test_a_stray_quote_costs_one_line(self, tmp_path):
        """A quote that never ends is a fault of its line; the lines after it are read."""
        lines = "".join(f"u,i{number}\n" for number in range(300))
        path = write(tmp_path / "a.csv", f'user_id,item_id\nu,"oops\n{lines}')
        faults = Faults(allowed=1)
        assert len(rows(path, faults=faults)) == 300
        assert faults.describe() == [f"{path}:2: a quoted field is longer than 100 lines"]

    def test_compressed_files_are_recognised_by_their_content(self, tmp_path):
        """Files in gzip and Zstandard are read under any name, and a byte order mark is ignored."""
        content = "\ufeffuser_id,item_id\nu,i\n".encode()
        packed = {"a.csv": content, "b": gzip.compress(content), "c": pa.compress(content, "zstd", asbytes=True)}
        for name, each in packed.items():
            assert rows(write(tmp_path / name, each)) == [Row("u", "i", 1.0, None)]

    @pytest.mark.parametrize("codec", ["gzip", "zstd"])
    def test_a_damaged_archive_is_named(self, tmp_path, codec):
        """A compressed file that lacks its end, or has changed bytes, ends with an error that names the file."""
        content = b"user_id,item_id\n" + b"".join(b"u%d,i%d\n" % (number, number * 7) for number in range(2000))
        packed = gzip.compress(content) if codec == "gzip" else pa.compress(content, "zstd", asbytes=True)
        half = len(packed) // 2
        # Zstandard's check sum is optional, and pyarrow writes none, so changed bytes go unnoticed there.
        changed = [packed[:half] + b"\xff" * 40 + packed[half + 40 :]] if codec == "gzip" else []
        for damaged in (packed[:half], *changed):
            with pytest.raises(DataError, match=r"a\.csv: "):
                rows(write(tmp_path / "a.csv", damaged), faults=Faults(allowed=10_000))

    def test_utf16_and_endless_lines_are_refused(self, tmp_path):
        """Text in UTF-16, and a file without line ends, are refused with the reason."""
        with pytest.raises(DataError, match="UTF-16; save it in UTF-8"):
            rows(write(tmp_path / "a.csv", "user_id,item_id\n".encode("utf-16")))
        with pytest.raises(DataError, match="a.csv:2: the line is longer than 1 MiB"):
            rows(write(tmp_path / "a.csv", b"user_id,item_id\n" + b"x" * (1024 * 1024 + 1)))

    def test_parquet_is_read(self, tmp_path):
        """Numbers become ids, times of any unit and zone become UTC, and no value means no value."""
        columns = {
            "UserId": pa.array([1, 2, None]),
            "item_id": pa.array(["a", "b", "c"]).dictionary_encode(),
            "rating": pa.array([4.5, None, 1.0]),
            "time": pa.array([1_700_000_000_000, None, 0], pa.timestamp("ms", "Europe/Paris")),
            "tags": pa.array([["x"], [], None]),
        }
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        faults = Faults(allowed=1)
        assert rows(tmp_path / "a.parquet", faults=faults) == [
            Row("1", "a", 4.5, 1_700_000_000 * SECOND_US),
            Row("2", "b", 1.0, None),
        ]
        assert faults.describe()[0].startswith(f"{tmp_path / 'a.parquet'}:3: user_id must be")

    def test_a_damaged_parquet_file_is_named(self, tmp_path):
        """A file that begins like Parquet and is not ends with an error that names it."""
        with pytest.raises(DataError, match="a.parquet: cannot be read as Parquet"):
            rows(write(tmp_path / "a.parquet", b"PAR1" + b"x" * 100))


class TestFaults:
    """Faulty lines, counted by kind."""

    def test_all_faults_are_counted_by_kind(self, tmp_path):
        """The error has a line for each kind of fault of all files, with the first of the kind and the number."""
        path = write(tmp_path / "a.csv", "user_id,item_id,weight\nu,i,x\nu,i,y\nu,i\nu,i,1\n,i,1\nu,i,z\n")
        users = write(tmp_path / "u.csv", "user_id,age\nu,old\n")
        with pytest.raises(DataError) as caught:
            list(read_csv(path, items=None, users=users).rows)
        assert str(caught.value).splitlines() == [
            f"{path}:2: the weight must be a number above 0, not 'x' (the first of 3 such lines)",
            f"{users}:2: age must be a whole number, not 'old'",
            f"{path}:4: 3 columns wanted, found 2",
            f"{path}:6: user_id must be 1 to 128 printable characters, not ''",
            "faulty lines: 6; correct them, or leave them out with --skip-faults 6",
        ]

    @pytest.mark.parametrize("format_", ["csv", "movielens", "lastfm"])
    def test_faulty_lines_are_left_out_up_to_the_limit(self, tmp_path, format_):
        """In every format, with a limit of two, two faulty lines are left out, and three are too many."""
        good = {"csv": "u,i,1,3\n", "movielens": "u\ti\t1\t3\n", "lastfm": "u\ti\t1\n"}[format_]
        header = "user_id,item_id,weight,timestamp\n" if format_ == "csv" else ""
        bad = good.replace("1", "none").encode(), b"\xff" + good.replace("i", "").encode()
        path = write(tmp_path / "a", header.encode() + good.encode() + bad[0] + bad[1] + good.encode())
        read = FORMATS[format_]
        assert len(list(read(path, items=None, users=None, faults=Faults(allowed=2)).rows)) == 2
        write(path, path.read_bytes() + bad[0])
        with pytest.raises(DataError, match="faulty lines: 3; --skip-faults allows 2"):
            list(read(path, items=None, users=None, faults=Faults(allowed=2)).rows)

    def test_a_training_leaves_out_faulty_lines_and_says_so(self, tmp_path, capsys):
        """`train --skip-faults` trains on the other lines and prints the faults; without it nothing is imported."""
        lines = "".join(f"u{number},i{number % 3}\nu{number},i{(number + 1) % 3}\n" for number in range(9))
        path = write(tmp_path / "a.csv", f"uid,item_id\n{lines}u1\n")
        words = ["--state-dir", str(tmp_path / "s"), "--interactions", str(path), "--map", "user=uid"]
        assert run_verb(["train", *words]) == 1
        assert StateDirectory(tmp_path / "s").current() is None
        capsys.readouterr()
        assert run_verb(["train", *words, "--skip-faults", "1"]) == 0
        left_out, total, step, *warnings = capsys.readouterr().err.splitlines()
        assert (left_out, total) == (f"{path}:20: 2 columns wanted, found 1", "left out faulty lines: 1")
        assert step == "training the model"
        assert [line.partition(";")[0] for line in warnings] == [
            "warning: too little to learn from: users with two items or more: 9",
            "warning: too little to learn from: items of two such users or more: 3",
        ]


def test_enough_data_brings_no_warning():
    """Users with two items and items of two users count; the limits themselves are enough."""
    records = [
        UserRecord(
            f"u{user}", "unknown", history=[HistoryItem(f"i{(user + step) % ENOUGH_ITEMS}", 1.0, 0) for step in (0, 1)]
        )
        for user in range(ENOUGH_USERS)
    ]
    assert find_shortages(records) == []
    assert len(find_shortages(records[1:])) == 1
    assert len(find_shortages([])) == 2


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_away_from_a_terminal_is_a_line_every_few_seconds():
    """Without a terminal, at most one line is printed in five seconds."""
    now, out = [0.0], io.StringIO()
    with progress("reading a.csv", 2000, "B", out=out, clock=lambda: now[0]) as show:
        for now[0], done in ((4.9, 100), (5.0, 999), (9.9, 1500), (10.1, 2000)):
            show(done)
    assert out.getvalue() == "reading a.csv: 999 B (50%)\nreading a.csv: 2.00k B (100%)\n"


def test_progress_on_a_terminal_is_a_bar():
    """On a terminal, a bar shows the share that is done."""
    out = Terminal()
    with progress("reading a.csv", 2000, "B", out=out) as show:
        show(2000)
    assert "reading a.csv: 100%" in out.getvalue()
