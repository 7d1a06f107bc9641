"""Interaction files in their published formats, valid and malformed."""

import gzip
from pathlib import Path

import pytest

from offline.reading.csv_files import read_csv
from offline.reading.lastfm import read_lastfm
from offline.reading.lines import DataError, Row
from offline.reading.movielens import read_movielens
from recrank.artefact import Item


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def rows(path: Path) -> list[Row]:
    return list(read_csv(path, items=None, users=None).rows)


class TestCsv:
    """The reader of comma-separated files with a header."""

    def test_columns_are_found_by_name(self, tmp_path):
        """Columns may be in any order, unknown columns are ignored, and ids stay text."""
        path = write(
            tmp_path,
            "a.csv",
            'weight,item_id,note,user_id,timestamp\r\n2.5,007,x,01,1700000000\r\n1,8,"a, b",02,2024-01-01T00:00:00Z\r\n',
        )
        assert rows(path) == [
            Row("01", "007", 2.5, 1_700_000_000_000_000),
            Row("02", "8", 1.0, 1_704_067_200_000_000),
        ]

    def test_two_columns_are_enough(self, tmp_path):
        """Weight defaults to 1 and time to none; blank lines, a byte order mark and gzip are accepted."""
        path = write(tmp_path, "a.csv.gz", "\ufeffuser_id,item_id\n\nu,i\n\n")
        assert rows(path) == [Row("u", "i", 1.0, None)]

    def test_optional_columns_can_be_empty(self, tmp_path):
        """An empty weight or timestamp counts as absent, and a time without a zone is UTC."""
        path = write(tmp_path, "a.csv", "user_id,item_id,weight,timestamp\nu,i,,\nu,j,,1970-01-01 00:00:01\n")
        assert rows(path) == [
            Row("u", "i", 1.0, None),
            Row("u", "j", 1.0, 1_000_000),
        ]

    def test_items_and_users_have_files_of_their_own(self, tmp_path):
        """Titles and categories come from the items file, and ages or age groups from the users file."""
        interactions = write(tmp_path, "a.csv", "user_id,item_id\nu,i\n")
        items = write(tmp_path, "i.csv", "item_id,title,category\ni,Über,Drama\nj,,\n")
        users = write(tmp_path, "u.csv", "user_id,age,age_group\nu,30,\nv,,55+\nw,,\n")
        source = read_csv(interactions, items=items, users=users)
        assert source.items == {"i": Item("i", "Über", {"category": ("Drama",)}), "j": Item("j")}
        assert source.age_groups == {"u": "25-34", "v": "55+"}

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is empty"),
            ("user_id,weight\n", ":1: the header must name user_id, item_id; missing: item_id"),
            ("user_id,item_id\nu\n", ":2: 2 columns wanted, found 1"),
            ("user_id,item_id\nu,i,x\n", ":2: 2 columns wanted, found 3"),
            ('user_id,item_id\nu,"i\n', ":2: not CSV"),
            ("user_id,item_id\n,i\n", ":2: user_id must be 1 to 128 printable characters"),
            ("user_id,item_id\nu,%s\n" % ("x" * 129), ":2: item_id must be"),
            ("user_id,item_id\nu,\x00\n", ":2: item_id must be"),
            ("user_id,item_id,weight\nu,i,many\n", ":2: the weight must be a number above 0, not 'many'"),
            ("user_id,item_id,weight\nu,i,0\n", ":2: the weight"),
            ("user_id,item_id,weight\nu,i,-1\n", ":2: the weight"),
            ("user_id,item_id,weight\nu,i,nan\n", ":2: the weight"),
            ("user_id,item_id,weight\nu,i,1e999\n", ":2: the weight"),
            ("user_id,item_id,weight\nu,i,5e9\n", ":2: the weight must be at most 4294967296, not '5e9'"),
            ("user_id,item_id,timestamp\nu,i,yesterday\n", ":2: the timestamp"),
            (
                "user_id,item_id,timestamp\nu,i,5000000000\n",
                ":2: the timestamp must be seconds or milliseconds since 1970",
            ),
            ("user_id,item_id,timestamp\nu,i,-5\n", ":2: the timestamp"),
        ],
    )
    def test_a_malformed_line_is_named(self, tmp_path, text, reason):
        """The error names the file, the line and the reason."""
        path = write(tmp_path, "a.csv", text)
        with pytest.raises(DataError) as caught:
            rows(path)
        assert str(caught.value).startswith(str(path))
        assert reason in str(caught.value)

    @pytest.mark.parametrize("line", ["u,old,", "u,,teen", "u,-3,"])
    def test_a_malformed_user_is_named(self, tmp_path, line):
        """An age must be a whole number and an age group a known one."""
        interactions = write(tmp_path, "a.csv", "user_id,item_id\nu,i\n")
        users = write(tmp_path, "u.csv", f"user_id,age,age_group\n{line}\n")
        with pytest.raises(DataError, match="u.csv:2: "):
            list(read_csv(interactions, items=None, users=users).rows)


class TestMovieLens:
    """The reader of both layouts of MovieLens."""

    def test_tab_separated_files_are_read(self, tmp_path):
        """The reader reads u.data, u.item and u.user, in Latin-1."""
        interactions = write(tmp_path, "u.data", "196\t242\t3\t881250949\n186\t302\t4.5\t891717742\n")
        flags = "|".join("1" if genre in (5, 14) else "0" for genre in range(19))
        items = write(tmp_path, "u.item", f"242|Délice (1997)|24-Jan-1997||http://x|{flags}\n", "latin-1")
        users = write(tmp_path, "u.user", "196|49|M|writer|55105\n186|17|F|x|0\n")
        source = read_movielens(interactions, items=items, users=users)
        assert list(source.rows) == [
            Row("196", "242", 3.0, 881_250_949_000_000),
            Row("186", "302", 4.5, 891_717_742_000_000),
        ]
        assert source.items == {
            "242": Item("242", "Délice (1997)", {"category": ("Comedy", "Romance"), "year": ("1997",)})
        }
        assert source.age_groups == {"196": "45-54", "186": "under-18"}

    def test_colon_separated_files_are_read(self, tmp_path):
        """The reader reads ratings.dat, movies.dat and users.dat."""
        interactions = write(tmp_path, "ratings.dat", "1::1193::5::978300760\n")
        items = write(tmp_path, "movies.dat", "1193::One Flew Over (1975)::Drama|War\n5::Untitled\n")
        users = write(tmp_path, "users.dat", "1::F::56::10::48067\n")
        source = read_movielens(interactions, items=items, users=users)
        assert list(source.rows) == [Row("1", "1193", 5.0, 978_300_760_000_000)]
        assert source.items["1193"] == Item(
            "1193", "One Flew Over (1975)", {"category": ("Drama", "War"), "year": ("1975",)}
        )
        assert source.items["5"] == Item("5", "Untitled")
        assert source.age_groups == {"1": "55+"}

    @pytest.mark.parametrize("text", ["1\t2\t3\n", "1::2::3\n", "1\t2\tx\t4\n", "1\t2\t3\tx\n", "\t2\t3\t4\n"])
    def test_a_malformed_line_is_named(self, tmp_path, text):
        """The error names the file and the line."""
        interactions = write(tmp_path, "u.data", "1\t2\t3\t4\n" + text)
        with pytest.raises(DataError, match="u.data:2: "):
            list(read_movielens(interactions, items=None, users=None).rows)


class TestLastFm:
    """The reader of Last.fm files from HetRec 2011."""

    def test_files_with_and_without_a_header_are_read(self, tmp_path):
        """A header line is skipped, listening counts become weights, and there are no times."""
        interactions = write(tmp_path, "user_artists.dat.gz", "//userID\tartistID\tweight\n2\t51\t13883\n")
        items = write(tmp_path, "artists.dat", "51\tDuran Duran\thttp://x\thttp://y\n")
        source = read_lastfm(interactions, items=items, users=None)
        assert list(source.rows) == [Row("2", "51", 13883.0, None)]
        assert source.items == {"51": Item("51", "Duran Duran")}
        headed = write(tmp_path, "b.dat", "id\tname\turl\n51\tDuran Duran\n")
        assert list(read_lastfm(interactions, items=headed, users=None).items) == ["51"]

    def test_a_users_file_is_refused(self, tmp_path):
        """The format has no users file, so one is an error."""
        with pytest.raises(DataError, match="no users file"):
            read_lastfm(tmp_path / "a", items=None, users=tmp_path / "u")

    def test_a_malformed_line_is_named(self, tmp_path):
        """The error names the file and the line."""
        interactions = write(tmp_path, "a.dat", "2\t51\t1\n2\t51\n")
        with pytest.raises(DataError, match="a.dat:2: 3 fields"):
            list(read_lastfm(interactions, items=None, users=None).rows)


def test_a_missing_file_is_named(tmp_path):
    """A missing file raises DataError with its name."""
    with pytest.raises(DataError, match="none.csv: No such file"):
        rows(tmp_path / "none.csv")


def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path):
    """A file that ends in .gz and is not gzip raises DataError with its name."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(b"user_id,item_id\n")
    with pytest.raises(DataError, match="a.csv.gz: "):
        rows(path)
