"""The completion scripts of the shells; all ask `kdrun --complete` for candidates."""

BASH = r"""
_kdrun() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}"
    COMPREPLY=($(COMP_LINE="$line" "$1" --complete 2>/dev/null))
    # bash takes '=' and '@' for the ends of words: give it only what follows the last of them.
    local word="${line##*[[:space:]]}"
    if [[ $word != [\'\"]* && $word == *[=@]* ]]; then
        local typed="${word%"${word##*[=@]}"}"
        COMPREPLY=("${COMPREPLY[@]#"$typed"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then
        compopt -o nospace
    fi
}
complete -o default -F _kdrun kdrun
"""

ZSH = r"""
#compdef kdrun
_kdrun() {
    local -a found open whole
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    found=("${(@f)$(COMP_LINE="$line" $words[1] --complete 2>/dev/null)}")
    open=(${(M)found:#*[=.]})
    whole=(${found:#*[=.]})
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#whole )) && compadd -Q -- $whole
    (( $#open + $#whole )) || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _kdrun kdrun
"""

FISH = r"""
function __kdrun
    set -lx COMP_LINE (commandline -cp | string collect)
    kdrun --complete 2>/dev/null
end
complete -c kdrun -f -a '(__kdrun)'
"""

SCRIPTS = {"bash": BASH.lstrip(), "zsh": ZSH.lstrip(), "fish": FISH.lstrip()}
